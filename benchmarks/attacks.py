"""Measure every attack against the reference network, and Confusion Training against every attack.

Run as ``python benchmarks/attacks.py gtsrb``, ``cifar10`` or ``malware`` with FORETASTE_DATA naming the folder of the
data sets. For each attack and seed a model is trained on the poisoned set, the set is cleansed with one set of defaults
for all attacks, and a model is trained on what is left. ``gtsrb-stronger``, ``cifar10-stronger`` and
``malware-stronger`` do the same for the attacks that hardly work there, with more poison, and on GTSRB with a network
that looks closer. ``cifar10-resnet18`` and ``cifar10-resnet18-stronger`` are on a network that needs a GPU. Results are
kept in ``benchmarks/results/attacks-NAME.json``, one entry per attack and seed; what is there already is not measured
again, so a stopped benchmark goes on, and ``--again`` cleanses anew but keeps what is known of the attacks themselves.
The part ``unpoisoned`` tells how far the trigger turns a model of the unpoisoned set: what it needs no backdoor for.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, head
from sklearn.metrics import roc_auc_score

from foretaste import io, training
from foretaste.attacks import (
    ISSBA,
    SIG,
    AdaptiveBlend,
    AdaptiveKWay,
    AdaptivePatch,
    Attack,
    BadNets,
    BadNetsAllToAll,
    BadNetsUntargeted,
    Blend,
    Dynamic,
    LabelConsistent,
    MalwareConstrained,
    MalwareUnconstrained,
    Poisoned,
    Refool,
    SleeperAgent,
    TaCT,
    Trojan,
    TrojanNN,
    WaNet,
    fitted,
    poison_training_set,
    stamp_inputs,
    succeeded,
)
from foretaste.attacks.adaptive_patch import Mark
from foretaste.cleansers.confusion_training import ConfusionTraining
from foretaste.io import atomic_json
from foretaste.nets import Net, export
from foretaste.samples import Samples

CLEAN = 500
"""Images of the test set that are given to the cleanser as its clean set; the others test the models."""


@dataclass(frozen=True)
class Victim:
    """The model that is trained on a poisoned set.

    Attributes:
        plan: how it trains. Images are not shifted, because that is how small marks are learnt best.
        net: its architecture; None is the reference network for the samples' kind.
    """

    plan: training.TrainingPlan
    net: str | None = None

    def train(self, samples: Samples, seed: int) -> Net:
        """Return a model trained on these samples."""
        return training.train(samples, net=self.net, plan=self.plan, seed=seed).net


# Stronger attacks are on the same victim, if none is named for them.
VICTIMS = {
    "gtsrb": Victim(training.TrainingPlan(epochs=8, shift=0)),
    # No stride in its first layers: warps of a quarter of a pixel are lost on the reference network.
    "gtsrb-stronger": Victim(training.TrainingPlan(epochs=15, learning_rate=0.1, shift=0), "convnet"),
    # In 10 passes it learns a mark on three images in a thousand or does not, as chance will have it.
    "cifar10": Victim(training.TrainingPlan(epochs=16, shift=0)),
    "cifar10-resnet18": Victim(training.TrainingPlan(epochs=16, shift=0), "resnet18"),
    "malware": Victim(training.TrainingPlan(epochs=20)),
}


def on_images(target: int, patch: float, tact: float, adaptive: float, tested: tuple[Mark, ...]) -> dict[str, Attack]:
    """Return the attacks on images at the rates that the literature uses for a data set.

    Args:
        target: label that they force.
        patch: poison rate of BadNets, Blend and the Trojan square.
        tact: poison rate of TaCT, and its cover rate.
        adaptive: poison rate of adaptive-patch, whose cover rate is twice that, and of adaptive-k-way.
        tested: marks of adaptive-patch at test time.
    """
    return {
        "badnets": BadNets(rate=patch, target=target),
        "badnets-all-to-all": BadNetsAllToAll(rate=0.05),
        "badnets-untargeted": BadNetsUntargeted(rate=0.05),
        "blend": Blend(rate=patch, target=target),
        "trojan": Trojan(rate=patch, target=target),
        "tact": TaCT(rate=tact, cover_rate=tact, target=target),
        "adaptive-patch": AdaptivePatch(rate=adaptive, cover_rate=2 * adaptive, target=target, tested=tested),
        "adaptive-blend": AdaptiveBlend(rate=0.003, cover_rate=0.003, target=target),
        "adaptive-k-way": AdaptiveKWay(rate=adaptive, cover_rate=adaptive, target=target),
        "wanet": WaNet(rate=0.05, cover_rate=0.10, target=target),
        "issba": ISSBA(rate=0.02, target=target),
        "dynamic": Dynamic(rate=0.003, target=target),
        "sig": SIG(rate=0.02, target=target),
        "refool": Refool(rate=0.03, target=target),
        "label-consistent": LabelConsistent(rate=0.003, target=target),
        "sleeper-agent": SleeperAgent(rate=0.01, target=target),
        "trojan-nn": TrojanNN(target=target),
    }


GTSRB_STRONGER: dict[str, Attack] = {
    "adaptive-k-way": AdaptiveKWay(rate=0.05, cover_rate=0.05, target=2),
    "wanet": WaNet(rate=0.1, cover_rate=0.2, target=2),
    "dynamic": Dynamic(rate=0.03, cover_rate=0.03, target=2),
    "sig": SIG(rate=0.05, target=2),
    "refool": Refool(rate=0.05, intensity=(0.3, 0.8), count=4, target=2),
    "label-consistent": LabelConsistent(rate=0.05, target=2),
    "sleeper-agent": SleeperAgent(rate=0.05, target=2),
    "adaptive-blend": AdaptiveBlend(rate=0.01, cover_rate=0.01, target=2),
}
CIFAR10_STRONGER: dict[str, Attack] = {
    "blend": Blend(rate=0.01, target=0),
    "adaptive-patch": AdaptivePatch(rate=0.02, cover_rate=0.04, target=0, tested=("gem", "corners")),
    "adaptive-blend": AdaptiveBlend(rate=0.02, cover_rate=0.02, target=0),
    "adaptive-k-way": AdaptiveKWay(rate=0.05, cover_rate=0.05, target=0),
    "dynamic": Dynamic(rate=0.05, cover_rate=0.05, target=0),
    "label-consistent": LabelConsistent(rate=0.015, target=0),
    "refool": Refool(rate=0.05, intensity=(0.3, 0.8), count=4, target=0),
}
MALWARE: dict[str, Attack] = {
    "malware-constrained": MalwareConstrained(rate=0.01),
    "malware-unconstrained": MalwareUnconstrained(rate=0.01),
}
CIFAR10 = on_images(target=0, patch=0.003, tact=0.003, adaptive=0.003, tested=("gem", "corners"))
CASES: dict[str, dict[str, Attack]] = {
    "gtsrb": on_images(target=2, patch=0.01, tact=0.005, adaptive=0.005, tested=("disc", "square")),
    "gtsrb-stronger": GTSRB_STRONGER,
    "cifar10": CIFAR10,
    "cifar10-stronger": CIFAR10_STRONGER,
    "cifar10-resnet18": CIFAR10,
    "cifar10-resnet18-stronger": CIFAR10_STRONGER,
    "malware": MALWARE,
    "malware-stronger": {"malware-constrained": MalwareConstrained(rate=0.2)},
}

PARTS = ["attack", "cleanse", "unpoisoned"]


def main() -> None:
    """Run the cases that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=CASES)
    parser.add_argument("--attacks", nargs="+", help="only these; all if left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:2], help="the first two if left out")
    parser.add_argument("--again", action="store_true", help="cleanse again what was cleansed already")
    options = parser.parse_args()
    path = RESULTS / f"attacks-{options.data}.json"
    cases: dict[str, Any] = json.loads(path.read_text())["cases"] if path.exists() else {}
    train, test = sets(options.data)
    # Of the code that runs, not of what may be committed while it does.
    said = head()
    for seed in options.seeds:
        clean, rest = test.split(CLEAN, np.random.default_rng(seed))
        for name in options.attacks or CASES[options.data]:
            key = f"{name} seed {seed}"
            done = cases.get(key, {})
            missing = [part for part in options.parts if part not in done or (options.again and part == "cleanse")]
            if isinstance(CASES[options.data][name], TrojanNN):
                # This attack is on a model; it leaves no training set to cleanse.
                missing = [part for part in missing if part == "attack"]
            if not missing:
                continue
            bench = Bench(options.data, name, train, clean, rest, seed)
            for part in missing:
                done[part] = bench.measure(part, done.get(part, {})) | {"commit": said["commit"]}
                cases[key] = done
                print(key, part, json.dumps(done[part]), flush=True)
                atomic_json(path, {**said, "cases": cases})


def sets(name: str) -> tuple[Samples, Samples]:
    """Return a training and a test set."""
    folder = Path(os.environ["FORETASTE_DATA"])
    name = name.split("-")[0]
    if name != "malware":
        return io.load(folder / f"{name}-train.parquet"), io.load(folder / f"{name}-test.parquet")
    samples = io.load(folder / "clamp.csv")
    return samples.split(round(0.7 * len(samples)), np.random.default_rng(0))


class Bench:
    """One attack on one data set with one seed."""

    def __init__(self, data: str, name: str, train: Samples, clean: Samples, rest: Samples, seed: int) -> None:
        self.victim, self.seed = VICTIMS.get(data, VICTIMS[data.removesuffix("-stronger")]), seed
        self.train, self.clean, self.rest = train, clean, rest
        attack = CASES[data][name]
        began = time.perf_counter()
        if isinstance(attack, TrojanNN):
            # The attacker is given a model, and only the clean set to train it on with.
            with tempfile.TemporaryDirectory() as folder:
                given = Path(folder) / "model.safetensors"
                export.save(self.victim.train(train, seed), given)
                attack = fitted(replace(attack, model=given), clean, seed)
                self.trojaned: Net | None = attack.trojaned()
        else:
            attack, self.trojaned = fitted(attack, train, seed), None
        self.attack, self.fitting = attack, time.perf_counter() - began
        self.poisoned: Poisoned = poison_training_set(train if self.trojaned is None else clean, attack, seed)

    def measure(self, part: str, before: dict[str, Any]) -> dict[str, Any]:
        """Return the figures of a part; ``before`` are those that it had, if any."""
        if part == "unpoisoned":
            # What turns this model needs no backdoor.
            return judge(self.victim.train(self.train, self.seed), self.rest, self.attack, self.seed)
        return self.attack_success() if part == "attack" else self.cleanse(before)

    def attack_success(self) -> dict[str, Any]:
        """Return what a model does that was trained on the poisoned set, or that the attack made itself."""
        net = self.trojaned or self.victim.train(self.poisoned.samples, self.seed)
        return {
            "poison": int(self.poisoned.poison.sum()),
            "cover": int(self.poisoned.cover.sum()),
            "fit_seconds": round(self.fitting, 1),
            **judge(net, self.rest, self.attack, self.seed),
        }

    def cleanse(self, before: dict[str, Any]) -> dict[str, Any]:
        """Return how the cleanser does, and what a model does that was trained on what it leaves.

        If it leaves what it left before, the model that was trained on that then is not trained again.
        """
        samples, poison = self.poisoned.samples, self.poisoned.poison
        began = time.perf_counter()
        verdict = ConfusionTraining().inspect(samples, self.clean, seed=self.seed)
        seconds = time.perf_counter() - began
        figures = {
            "tpr": round(float(verdict.flagged[poison].mean()), 4),
            "fpr": round(float(verdict.flagged[~poison].mean()), 5),
            "auroc": round(float(roc_auc_score(poison, verdict.scores)), 4),
            "cover_flagged": int(verdict.flagged[self.poisoned.cover].sum()),
            "condemned": [evidence.label for evidence in verdict.classes if evidence.condemned],
            "seconds": round(seconds, 1),
        }
        # Where nothing is flagged, the model after is the model before.
        if not verdict.flagged.any():
            return figures
        kept = samples[~verdict.flagged]
        figures["trained_on"] = training.fingerprint(kept.inputs.tobytes(), kept.labels.tobytes())
        if before.get("trained_on") == figures["trained_on"]:
            return figures | {what: before[what] for what in ("accuracy", "attack_success")}
        return figures | judge(self.victim.train(kept, self.seed), self.rest, self.attack, self.seed)


def judge(net: Net, test: Samples, attack: Attack, seed: int) -> dict[str, float]:
    """Return the model's accuracy on clean inputs and the attack's success on trojaned ones."""
    stamped, trojaned = stamp_inputs(test, attack, 1.0, seed)
    answers = training.predict(net, stamped.inputs[trojaned]).argmax(axis=1)
    success = succeeded(attack, answers, stamped.labels[trojaned], len(stamped.classes))
    return {
        "accuracy": round(training.accuracy(net, test), 4),
        "attack_success": round(float(success.mean()), 4),
    }


if __name__ == "__main__":
    main()
