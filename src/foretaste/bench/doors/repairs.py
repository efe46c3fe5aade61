"""Door 2, the model: take the backdoor out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from foretaste import repairs
from foretaste.attacks import Attack, TrojansModel
from foretaste.bench.artefacts import Artefact
from foretaste.bench.case import Case, Stopwatch
from foretaste.bench.doors.door import MODEL_SECONDS, TIME, Column, Effort, Figures, percent
from foretaste.nets import Net
from foretaste.repairs import Repair
from foretaste.samples import Samples


@dataclass(frozen=True, kw_only=True)
class RepairDoor:
    """The model: methods that take a backdoor out of it.

    A method is given the model and the clean set, and the training set if it starts from that.
    """

    title: ClassVar[str] = "Repairs"
    legend: ClassVar[str] = (
        "Accuracy and attack success of the repaired model in percent. The darker, the better: the share of the "
        "accuracy that is kept, minus the attack's success."
    )
    columns: ClassVar[tuple[Column, ...]] = (
        Column(key="accuracy_before", title="accuracy before", unit="share"),
        Column(key="accuracy_after", title="accuracy after", unit="share", best="high"),
        Column(key="attack_success_before", title="attack success before", unit="share"),
        Column(key="attack_success_after", title="attack success after", unit="share", best="low"),
        *TIME,
    )

    def find(self, name: str) -> type[Any]:
        """Return the repair of this name."""
        return repairs.find(name)

    def refuses(self, attack: type[Attack] | None, method: type[Repair]) -> str | None:
        """Refuse attacks on models, which leave no training set, to methods that start from it."""
        if attack is not None and issubclass(attack, TrojansModel) and method.needs_training_set:
            return f"leaves a backdoored model and no training set, which {method.name} starts from"
        return None

    def refuses_samples(self, samples: Samples) -> str | None:
        """Take all samples."""
        return None

    def fewest_clean(self, method: type[Repair]) -> int:
        """Return what the method says."""
        return method.fewest_clean

    def prepare(self, method: Any, case: Case) -> None:
        """Train the model that is repaired."""
        case.victim  # noqa: B018, it is made when it is asked for

    def measure(self, method: Any, case: Case) -> Figures:
        """Let the method repair the model, and judge what comes out as the model was judged before."""
        kept, before = case.once("repaired", case.cell.key, lambda: self.repair(method, case)), case.victim
        return {
            "accuracy_before": before.accuracy,
            "attack_success_before": before.attack_success,
            MODEL_SECONDS: before.seconds,
            **kept.facts["figures"],
        }

    def repair(self, method: Repair, case: Case) -> Artefact:
        """Return the figures of the repaired model."""
        # Who was handed a backdoored model has no set that it was trained on.
        handed = case.attack is not None and issubclass(type(case.attack), TrojansModel)
        train = case.samples if method.needs_training_set and not handed else None
        net, watch = case.victim.net, Stopwatch()
        with watch.running():
            repaired = repairs.apply(
                method, net, train=train, clean=case.clean, seed=case.cell.seed, on_progress=case.on_progress
            )
        assert isinstance(repaired.net, Net)  # a repair gives back the kind of model that it was given
        accuracy, success = case.judge(repaired.net)
        figures = {
            "accuracy_after": accuracy,
            "attack_success_after": success,
            "seconds": watch.wall,
            "cpu_seconds": watch.cpu,
        }
        return Artefact({}, {"figures": figures})

    def effort(self, method: type[Repair], n_samples: int) -> Effort:
        """Repair one model, from the training set if the method starts from that; else its size changes nothing."""
        return Effort(samples=n_samples if method.needs_training_set else 1)

    def goodness(self, figures: Mapping[str, float | None]) -> float | None:
        """Return the share of the accuracy that was kept, minus the attack's success."""
        before, after = figures.get("accuracy_before"), figures.get("accuracy_after")
        if not before or after is None:
            return None
        return float(np.clip(after / before - (figures.get("attack_success_after") or 0.0), 0, 1))

    def headline(self, figures: Mapping[str, float | None]) -> str:
        """Return accuracy / attack success in percent."""
        return f"{percent(figures.get('accuracy_after'))} / {percent(figures.get('attack_success_after'))}"
