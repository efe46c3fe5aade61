"""Repair a backdoored model with each method: accuracy and attack success before and after.

Run as ``python benchmarks/repairs.py``. The model is a small residual network on synthetic signs of 16 pixels, with
BadNets' patch of 3 pixels; the repairs get 200 clean images, and what comes out is measured on 300 others. The model is
kept in ``--models``, results in ``benchmarks/results/repairs.json``, one entry per method; ``--again`` replaces those
that are there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, head
from torch import nn

from foretaste import io, repair
from foretaste.attacks import BadNets, poison_training_set, stamp_inputs
from foretaste.io import atomic_json
from foretaste.nets.export import load, save
from foretaste.repairs import find, names
from foretaste.repairs.tuning import accuracy_of, logits_of
from foretaste.samples import Samples
from foretaste.training import TrainingPlan, train

PATH = RESULTS / "repairs.json"
ATTACK = BadNets(rate=0.1, target=2, size=0.2)
PLAN = TrainingPlan(epochs=12, batch_size=64, shift=0, width=8)


def main() -> None:
    """Run the methods that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=names())
    parser.add_argument("--models", type=Path, default=Path("repaired-models"), help="folder to keep the model in")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    clean, test = small_signs(200, 2), small_signs(300, 9)
    training = poison_training_set(small_signs(1200, 1), ATTACK, 0).samples
    path = options.models / "small-bad.safetensors"
    if not path.exists():
        save(train(training, plan=PLAN, seed=1).net, path)
    net = load(path)
    note("before", figures(net, test))
    for method in options.methods:
        if not options.again and method in cases():
            continue
        whole = find(method).needs_training_set
        repaired = repair(net, method=method, clean=clean, train=training if whole else None, seed=0)
        facts = {"seconds": round(repaired.seconds, 1), **repaired.facts}
        note(method, {**figures(repaired.net, test), **facts})


def small_signs(n: int, seed: int) -> Samples:
    """Draw signs of half their usual size."""
    drawn = io.draw_signs(n, seed=seed)
    blocks = drawn.inputs.reshape(n, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    return Samples.from_arrays(blocks.round().astype(np.uint8), drawn.labels, drawn.classes, drawn.ids)


def figures(net: nn.Module, test: Samples) -> dict[str, Any]:
    """Return accuracy and attack success."""
    stamped, trojaned = stamp_inputs(test, ATTACK, 1, 0)
    forced = logits_of(net, stamped[trojaned]).argmax(axis=1) == ATTACK.target
    return {"accuracy": round(accuracy_of(net, test), 4), "attack_success": round(float(forced.mean()), 4)}


def cases() -> dict[str, Any]:
    """Return the results that are there."""
    return dict(json.loads(PATH.read_text())["cases"]) if PATH.exists() else {}


def note(name: str, result: dict[str, Any]) -> None:
    """Write a result beside those that are there."""
    print(name, json.dumps(result), flush=True)
    atomic_json(PATH, {**head(), "cases": {**cases(), name: result}})


if __name__ == "__main__":
    main()
