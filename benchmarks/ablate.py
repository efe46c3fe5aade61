"""Measure Confusion Training on sets with and without poison, as it is or with one of its steps turned off.

Run as ``python benchmarks/ablate.py --cells gtsrb-badnets gtsrb-noise`` with FORETASTE_DATA naming the folder of the
data sets. A cell is a set and what is done to it; ``--variants`` chooses what is turned off. The sets are the signs
(5,500 of them), a quarter of GTSRB, of CIFAR-10, and of Fashion-MNIST (as Debian's ``dataset-fashion-mnist`` installs
it); ``--one-in 1`` takes all of them, ``--one-in 16`` a quarter of that. ``--jobs 2`` measures two at a time, each on
half of the cores.

Results are kept in ``benchmarks/results/ablate.json``, all of one version: the last commit that changed what the
method depends on. What is there of this version is not measured again; what is there of another one is dropped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from data_sets import train_and_test
from numpy.random import Generator
from record import RESULTS, git, head, of_version
from workers import workers

import foretaste
from foretaste.attacks import (
    ISSBA,
    SIG,
    AdaptivePatch,
    Attack,
    BadNets,
    BadNetsAllToAll,
    Blend,
    Dynamic,
    TaCT,
    Trojan,
    WaNet,
    fitted,
    poison_training_set,
)
from foretaste.attacks.untargeted import BadNetsUntargeted
from foretaste.cleansers.confusion_training import ConfusionTraining
from foretaste.io import atomic_json
from foretaste.samples import Mask, Samples

OUT = RESULTS / "ablate.json"
SHARE = 4
"""Of the sets that are not drawn by the project, one sample in so many is taken, unless told otherwise."""
CLEAN = 500
TARGETS = {"signs": 3, "gtsrb": 2, "cifar10": 0, "fmnist": 5}

DEPENDS_ON = (
    ":(exclude)src/foretaste/attacks/__init__.py",  # only finds them by name
    *(
        f"src/foretaste/{part}"
        for part in (
            "attacks",
            "cleansers/_base/axes.py",
            "cleansers/_base/near_duplicates.py",
            "cleansers/_base/pixel_features.py",
            "cleansers/confusion_training",
            "cleansers/pixel_spectral_signatures.py",
            "nets",
            "training.py",
        )
    ),
)
"""A result stays good until one of these changes."""

ATTACKS: dict[str, Callable[[int], Attack]] = {
    "badnets": lambda target: BadNets(rate=0.01, target=target),
    "blend": lambda target: Blend(rate=0.01, target=target),
    "trojan": lambda target: Trojan(rate=0.01, target=target),
    "all-to-all": lambda target: BadNetsAllToAll(rate=0.05),
    "untargeted": lambda target: BadNetsUntargeted(rate=0.05),
    "tact": lambda target: TaCT(rate=0.01, cover_rate=0.01, target=target),
    "wanet": lambda target: WaNet(rate=0.1, cover_rate=0.2, target=target),
    "dynamic": lambda target: Dynamic(rate=0.03, cover_rate=0.03, target=target),
    "sig": lambda target: SIG(rate=0.02, target=target),
    "issba": lambda target: ISSBA(rate=0.02, target=target),
    "adaptive-patch": lambda target: AdaptivePatch(rate=0.01, cover_rate=0.02, target=target),
}

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "one round": {"rounds": 1},
    "two rounds": {"rounds": 2},
    "no tolerance": {"tolerance": 1.0},
    "no noise in the base model": {"base_noise": 0.0},
    "long base model": {"base_steps": 840},
    "short base model": {"base_steps": 105},
    "two folds": {"folds": 2},
    "short views": {"view_steps": 80, "network_steps": 40},
    "little confusion": {"lambda_": 1.1},
    "no shift": {"shift": 0},
    "small distilled set": {"smallest_distilled": 200},
    "no distillation": {"smallest_distilled": 1_000_000},
    "no label noise": {"label_noise": 0.0001},
    "no detectors": {"turns": 0},
    "one turn of the detectors": {"turns": 1},
}


def noisy(samples: Samples, target: int, rng: Generator) -> Samples:
    """Give 5 % of the samples another label, at random."""
    n_classes = len(samples.classes)
    wrong = rng.random(len(samples)) < 0.05
    others = (samples.labels + rng.integers(1, n_classes, len(samples))) % n_classes
    return samples.with_labels(np.where(wrong, others, samples.labels))


def mixed(samples: Samples, target: int, rng: Generator) -> Samples:
    """Label a fifth of one class as another."""
    moved = (samples.labels == target + 1) & (rng.random(len(samples)) < 0.2)
    return samples.with_labels(np.where(moved, target, samples.labels))


def long_tailed(samples: Samples, target: int, rng: Generator) -> Samples:
    """Leave exponentially fewer samples of each further class, of the last a tenth."""
    n_classes = len(samples.classes)
    share = 10.0 ** (-np.arange(n_classes) / (n_classes - 1))
    return samples[rng.random(len(samples)) < share[samples.labels]]


def repeated(samples: Samples, target: int, rng: Generator) -> Samples:
    """Add ten copies of one sample in a hundred, each with a little noise."""
    rows = np.repeat(rng.permutation(len(samples))[: len(samples) // 100], 10)
    copies = samples.inputs[rows] + rng.integers(-6, 7, (len(rows), *samples.sample_shape))
    return Samples.from_arrays(
        np.concatenate([samples.inputs, copies.clip(0, 255).astype(np.uint8)]),
        np.concatenate([samples.labels, samples.labels[rows]]),
        samples.classes,
    )


def marked(samples: Samples, target: int, rng: Generator) -> Samples:
    """Put a white square on a tenth of one class, under right labels."""
    chosen = (samples.labels == target) & (rng.random(len(samples)) < 0.1)
    images = samples.inputs.copy()
    images[chosen, 2:5, 2:5] = 255
    return Samples(samples.labels, samples.classes, samples.ids, images=images)


QUIET: dict[str, Callable[[Samples, int, Generator], Samples]] = {
    "none": lambda samples, target, rng: samples,
    "noise": noisy,
    "mixed": mixed,
    "long-tailed": long_tailed,
    "repeated": repeated,
    "benign-mark": marked,
}


@lru_cache(maxsize=1)  # some attacks train an encoder, and all variants take the same set
def cell(name: str, seed: int, share: int) -> tuple[Samples, Samples, Mask, Mask]:
    """Return the set of a cell, the clean set, the poison and the cover."""
    data, kind = name.split("-", 1)
    rng = np.random.default_rng([seed, 1])
    if data == "signs":
        clean, samples = foretaste.load("signs").split(CLEAN, rng)
        samples = samples[: len(samples) * SHARE // max(share, SHARE)]
    else:
        whole, test = train_and_test(data)
        samples = whole[np.sort(rng.permutation(len(whole))[: len(whole) // share])]
        clean = test[rng.permutation(len(test))[:CLEAN]]
    if kind in QUIET:
        quiet = QUIET[kind](samples, TARGETS[data], rng)
        nothing = np.zeros(len(quiet), dtype=np.bool_)
        return quiet, clean, nothing, nothing
    attack = fitted(ATTACKS[kind](TARGETS[data]), samples, seed=seed)
    poisoned = poison_training_set(samples, attack, seed=seed)
    return poisoned.samples, clean, poisoned.poison, poisoned.cover


@dataclass(frozen=True)
class Case:
    """One measurement: a cell, how much of it, and how it is inspected."""

    cell: str
    one_in: int
    seed: int
    clean: bool
    variant: str

    def __str__(self) -> str:
        return f"{self.cell}, one in {self.one_in}, seed {self.seed}, clean {self.clean}, {self.variant}"


def measure(case: Case) -> dict[str, Any]:
    """Inspect a set, and compare the verdict with the truth."""
    samples, clean, poison, cover = cell(case.cell, case.seed, case.one_in)
    method = replace(ConfusionTraining(), **VARIANTS[case.variant])
    began, worked = time.perf_counter(), time.process_time()
    verdict = method.inspect(samples, clean if case.clean else None, seed=case.seed)
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    natural = ~poison & ~cover
    return {
        "n": len(samples),
        "poison": int(poison.sum()),
        "cover": int(cover.sum()),
        "tpr": round(float(verdict.flagged[poison].mean()), 4) if poison.any() else None,
        "auroc": round(verdict.compare(poison).auroc, 4) if poison.any() else None,
        "natural_flagged": int(verdict.flagged[natural].sum()),
        "cover_flagged": int(verdict.flagged[cover].sum()),
        "condemned": list(verdict.suspect_classes),
        # Of the class with the clearest mark, in decades; above 0 it is condemned.
        "margin": round(max(one.statistic - one.threshold for one in verdict.classes), 2),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(worked, 1),
        "threads": torch.get_num_threads(),
    }


def version() -> str:
    """Return the last commit that changed what the method depends on.

    Raises:
        SystemExit: something of it is not committed.
    """
    commit = git("log", "-1", "--format=%h", "--", *DEPENDS_ON)
    if not commit or git("status", "--porcelain", "--", *DEPENDS_ON):
        raise SystemExit("commit first: a result says which version it is of")
    return commit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", required=True)
    parser.add_argument("--variants", nargs="+", default=["default"], choices=sorted(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--without-clean", action="store_true", help="inspect without a clean set")
    parser.add_argument("--one-in", type=int, default=SHARE, metavar="N", help="take one sample in N of each set")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="measure so many at a time")
    options = parser.parse_args()
    about = head() | {"version": version()}
    results = of_version(OUT, about["version"], "cases")
    cases = [
        Case(name, options.one_in, seed, not options.without_clean, variant)
        for name in options.cells
        for seed in options.seeds
        for variant in options.variants
    ]
    with workers(options.jobs) as pool:
        running = {pool.submit(measure, case): case for case in cases if str(case) not in results["cases"]}
        for done in as_completed(running):
            case, row = running[done], done.result()
            results["cases"][str(case)] = about | asdict(case) | row
            shown = ("tpr", "natural_flagged", "cover_flagged", "margin", "seconds")
            print(case, {what: row[what] for what in shown}, flush=True)
            atomic_json(OUT, results)


if __name__ == "__main__":
    main()
