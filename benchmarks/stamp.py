"""Measure how fast attacks stamp images, and how visible their triggers are.

Run as ``python benchmarks/stamp.py``, with the environment variable ``FORETASTE_DATA``. Each attack in closed form
stamps 50,000 images of 32 x 32 pixels, the test images of CIFAR-10 five times over. PSNR and SSIM compare images before
and after: as poison in training, and with the trigger of test time. For the attacks that are trained they are measured
on the training set of GTSRB, at the rates of the specification ``attacks.toml``. Results are kept in
``benchmarks/results/stamp.json``. Processor time is what counts; wall time depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, head

from foretaste.attacks import ATTACKS, Attack, Trainable, TrojanNN, find, fitted, poison_training_set
from foretaste.attacks._base.visibility import psnr, ssim
from foretaste.attacks.malware import Malware
from foretaste.bench import specification
from foretaste.bench.methods import built
from foretaste.io import atomic_json, load
from foretaste.samples import Images, Samples

IMAGES = 50_000


def main() -> None:
    """Measure and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+", help="only these; what is known of others is kept")
    options = parser.parse_args()
    path = RESULTS / "stamp.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if options.attacks and path.exists() else {}
    results: dict[str, Any] = kept.get("attacks", {})
    trained: dict[str, Any] = kept.get("trained", {})
    folder, literature = Path(os.environ["FORETASTE_DATA"]), published()
    samples = load(folder / "cifar10-test.parquet")
    images = np.resize(samples.inputs, (IMAGES, *samples.sample_shape))
    signs = load(folder / "gtsrb-train.parquet")
    for name, kind in ATTACKS.items():
        attack = literature.get(name, kind())
        # The Trojaned network's poison is not of the training set.
        if name not in (options.attacks or ATTACKS) or issubclass(kind, TrojanNN | Malware):
            continue
        if isinstance(attack, Trainable):
            trained[name] = visibility(fitted(attack, signs, seed=0), signs)
        else:
            results[name] = {**speed(kind(), images), **visibility(kind(), samples)}
        print(name, trained.get(name, results.get(name)))
    atomic_json(path, {**head(), "n_images": IMAGES, "attacks": results, "trained": trained})


def published() -> dict[str, Attack]:
    """Return the attacks on GTSRB at the rates of the literature, which stand before the stronger ones."""
    tables = tomllib.loads(specification.find("attacks.toml").read_text(encoding="utf-8"))["attacks"]
    return {
        table["name"]: built(find(table["name"]), {**table.get("set", {}), "rate": table["rates"][0]})
        for table in reversed(tables)
        if "gtsrb" in table["only"]["data"]
    }


def speed(attack: Attack, images: Images) -> dict[str, float]:
    """Return how long the attack takes to stamp all images."""
    attack.stamp(images[:1], np.random.default_rng(0))  # loads what it needs
    wall, processor = time.perf_counter(), time.process_time()
    attack.stamp(images, np.random.default_rng(0))
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
    }


def visibility(attack: Attack, samples: Samples) -> dict[str, Any]:
    """Return the mean likeness of poison, and of stamped inputs, to what they were."""
    poisoned = poison_training_set(samples, attack, seed=0)
    before = samples.inputs[poisoned.poison]
    likeness = {"train": (before, poisoned.samples.inputs[poisoned.poison])}
    some = samples.inputs[:1000]
    likeness["test"] = (some, attack.stamp(some, np.random.default_rng(0)))
    return {
        f"{measure.__name__}_{when}": round(float(np.mean(measure(*pair))), 3)
        for when, pair in likeness.items()
        for measure in (psnr, ssim)
    }


if __name__ == "__main__":
    main()
