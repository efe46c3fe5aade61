"""Door 2, the model: does it have a backdoor?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from foretaste import inspectors
from foretaste.attacks import Attack
from foretaste.attacks._base.attack import check_range
from foretaste.bench.artefacts import Artefact
from foretaste.bench.case import Case, Stopwatch
from foretaste.bench.doors.door import CAUGHT, MODEL_SECONDS, TIME, Column, Effort, Figures, caught, percent
from foretaste.errors import UsageError
from foretaste.inspectors import Inspector
from foretaste.samples import Samples


@dataclass(frozen=True, kw_only=True)
class InspectorDoor:
    """The model: methods that say whether it has a backdoor.

    A cell is one model. What the method says of it is compared with what it says of clean models: of the same network,
    trained on the set as it was before the attack, from the seeds 0, 1, … The mean over cells of the share of clean
    models that look less suspicious is the AUROC over all pairs.

    Attributes:
        clean_models: how many, ≥ 1.
        false_alarm_rate: what the methods are asked to keep, in (0, 1).

    Raises:
        UsageError: a field is out of range.
    """

    title: ClassVar[str] = "Inspectors"
    legend: ClassVar[str] = CAUGHT
    columns: ClassVar[tuple[Column, ...]] = (
        Column(key="tpr", title="TPR", unit="share", best="high"),
        Column(key="fpr", title="FPR", unit="share", best="low"),
        Column(key="auroc", title="AUROC", unit="share", best="high"),
        Column(key="p_value", title="p-value", unit="number"),
        Column(key="accuracy_before", title="model's accuracy", unit="share"),
        Column(key="attack_success_before", title="attack success", unit="share"),
        Column(key="queries", title="queries", unit="number", best="low"),
        *TIME,
    )

    clean_models: int = 3
    false_alarm_rate: float = 0.05

    def __post_init__(self) -> None:
        check_range("clean_models", self.clean_models, 1, float("inf"))
        if not 0 < self.false_alarm_rate < 1:
            raise UsageError(f"false_alarm_rate must be between 0 and 1, not {self.false_alarm_rate:g}")

    def find(self, name: str) -> type[Any]:
        """Return the inspector of this name."""
        return inspectors.find(name)

    def refuses(self, attack: type[Attack] | None, method: type[Any]) -> str | None:
        """Take all attacks."""
        return None

    def refuses_samples(self, samples: Samples) -> str | None:
        """Refuse feature vectors."""
        return "has feature vectors, and inspectors judge classifiers of images" if samples.images is None else None

    def fewest_clean(self, method: type[Inspector]) -> int:
        """Return what the method says."""
        return method.fewest_clean

    def prepare(self, method: Any, case: Case) -> None:
        """Train the model, and have the method look at the clean ones."""
        case.victim  # noqa: B018, it is made when it is asked for
        for twin in self.twins(case):
            self.diagnosis(method, twin)

    def measure(self, method: Any, case: Case) -> Figures:
        """Let the method judge the model, and the clean ones if the model has a backdoor."""
        said, victim = self.diagnosis(method, case), case.victim
        figures: Figures = {
            "tpr": None,
            "fpr": said["backdoored"],
            "auroc": None,
            **{key: said[key] for key in ("p_value", "queries", "seconds", "cpu_seconds")},
            "accuracy_before": victim.accuracy,
            "attack_success_before": victim.attack_success,
            MODEL_SECONDS: victim.seconds,
        }
        if case.attack is not None:
            others = [self.diagnosis(method, twin) for twin in self.twins(case)]
            scores = np.array([other["score"] for other in others])
            figures |= {
                "tpr": said["backdoored"],
                "fpr": float(np.mean([other["backdoored"] for other in others])),
                "auroc": float((scores < said["score"]).mean() + (scores == said["score"]).mean() / 2),
            }
        return figures

    def twins(self, case: Case) -> Iterator[Case]:
        """Yield the cases of the clean models; their cells are those of the trial without an attack."""
        for seed in range(self.clean_models):
            yield case.unpoisoned(seed)

    def diagnosis(self, method: Inspector, case: Case) -> Mapping[str, Any]:
        """Return what the method says of one model."""

        def inspect() -> Artefact:
            net, watch = case.victim.net, Stopwatch()
            with watch.running():
                said = inspectors.apply(
                    method,
                    net,
                    case.clean,
                    false_alarm_rate=self.false_alarm_rate,
                    seed=case.cell.seed,
                    on_progress=case.on_progress,
                )
            facts = {
                "backdoored": float(said.backdoored),
                "p_value": said.p_value,
                "score": said.score,
                "queries": float(said.queries),
                "seconds": watch.wall,
                "cpu_seconds": watch.cpu,
            }
            return Artefact({}, facts)

        return case.once("diagnosis", case.cell.key, inspect).facts

    def effort(self, method: type[Any], n_samples: int) -> Effort:
        """Judge one model; the clean ones are those of a trial without an attack, and count there."""
        return Effort(samples=1)

    def goodness(self, figures: Mapping[str, float | None]) -> float | None:
        """Return TPR − FPR; without a backdoor, how far the FPR is from 5 %."""
        return caught(figures.get("tpr"), figures.get("fpr"))

    def headline(self, figures: Mapping[str, float | None]) -> str:
        """Return TPR / FPR in percent."""
        return f"{percent(figures.get('tpr'))} / {percent(figures.get('fpr'))}"
