"""Door 3, the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.metrics import roc_auc_score

from foretaste import guards
from foretaste.attacks import Attack
from foretaste.attacks._base.attack import check_range, succeeded
from foretaste.bench.artefacts import Artefact
from foretaste.bench.case import Case, Stopwatch
from foretaste.bench.doors.door import CAUGHT, MODEL_SECONDS, TIME, Column, Effort, Figures, caught, percent, share
from foretaste.classifiers.torch_module import TorchModule
from foretaste.errors import UsageError
from foretaste.samples import Labels, Mask, Samples


@dataclass(frozen=True, kw_only=True)
class GuardDoor:
    """The inputs: methods that screen what a deployed model is asked.

    Attributes:
        inputs: test images that are screened, ≥ 2; fewer where the test set holds fewer.
        trojaned: share of the attack's victims among them that carry the trigger, in (0, 1].
        false_alarm_rate: what the methods are asked to keep, in (0, 1).

    Raises:
        UsageError: a field is out of range.
    """

    title: ClassVar[str] = "Guards"
    legend: ClassVar[str] = CAUGHT
    columns: ClassVar[tuple[Column, ...]] = (
        Column(key="tpr", title="TPR", unit="share", best="high"),
        Column(key="fpr", title="FPR", unit="share", best="low"),
        Column(key="auroc", title="AUROC", unit="share", best="high"),
        Column(key="corrected_accuracy", title="corrected accuracy", unit="share", best="high"),
        Column(key="accuracy_before", title="model's accuracy", unit="share"),
        Column(key="attack_success_before", title="attack success before", unit="share"),
        Column(key="attack_success_after", title="attack success after", unit="share", best="low"),
        Column(key="queries_per_image", title="queries per image", unit="number", best="low"),
        Column(key="ms_per_image", title="ms per image", unit="milliseconds", best="low"),
        *TIME,
    )

    inputs: int = 500
    trojaned: float = 0.5
    false_alarm_rate: float = 0.01

    def __post_init__(self) -> None:
        check_range("inputs", self.inputs, 2, float("inf"))
        check_range("trojaned", self.trojaned, 0, 1, open_low=True)
        if not 0 < self.false_alarm_rate < 1:
            raise UsageError(f"false_alarm_rate must be between 0 and 1, not {self.false_alarm_rate:g}")

    def find(self, name: str) -> type[Any]:
        """Return the guard of this name."""
        return guards.find(name)

    def refuses(self, attack: type[Attack] | None, method: type[Any]) -> str | None:
        """Take all attacks."""
        return None

    def refuses_samples(self, samples: Samples) -> str | None:
        """Refuse feature vectors."""
        return "has feature vectors, and guards screen images" if samples.images is None else None

    def fewest_clean(self, method: type[Any]) -> int:
        """Return what every guard needs, unless the method says that it needs more."""
        return max(guards.FEWEST, getattr(method, "fewest_clean", 0))

    def prepare(self, method: Any, case: Case) -> None:
        """Train the model that is guarded."""
        case.victim  # noqa: B018, it is made when it is asked for

    def measure(self, method: Any, case: Case) -> Figures:
        """Let the method, calibrated on the clean set, screen a stream of clean and trojaned inputs.

        A trojaned input whose answer the trigger did not change counts as clean for nobody: it is left out.
        """
        kept = case.once("screening", case.cell.key, lambda: self.screen(method, case))
        victim = case.victim
        return {
            **kept.facts["figures"],
            "accuracy_before": victim.accuracy,
            MODEL_SECONDS: victim.seconds,
        }

    def screen(self, method: Any, case: Case) -> Artefact:
        """Return the figures of one screening."""
        if case.clean is None:
            raise UsageError("a guard needs a clean set")
        classifier, watch, calibration = TorchModule(case.victim.net), Stopwatch(), Stopwatch()
        inputs, images, trojaned = self.stream(case)
        natural = classifier.classify(inputs.inputs).labels
        with calibration.running():
            guards.check_clean(classifier, case.clean, self.false_alarm_rate)
            screener = method.calibrate(
                classifier,
                case.clean,
                false_alarm_rate=self.false_alarm_rate,
                seed=case.cell.seed,
                on_progress=case.on_progress,
            )
        with watch.running():
            screening = screener.screen(images, case.on_progress)
        turned = trojaned & (screening.labels != natural)
        judged = turned | ~trojaned

        def success(answers: Labels) -> Mask:
            if case.attack is None:
                return np.zeros(len(answers), dtype=np.bool_)
            return succeeded(case.attack, answers, inputs.labels, len(inputs.classes))

        both = turned.any() and not trojaned.all()
        figures = {
            "tpr": share(screening.trojaned[turned]),
            "fpr": share(screening.trojaned[~trojaned]),
            "auroc": float(roc_auc_score(turned[judged], screening.scores[judged])) if both else None,
            "corrected_accuracy": share((screening.corrected == inputs.labels)[turned & (natural == inputs.labels)]),
            "attack_success_before": share(success(screening.labels)[trojaned]),
            "attack_success_after": share(success(screening.corrected)[trojaned]),
            "queries_per_image": float(screening.queries.mean()),
            "ms_per_image": 1000 * watch.wall / len(images),
            "seconds": calibration.wall + watch.wall,
            "cpu_seconds": calibration.cpu + watch.cpu,
        }
        return Artefact({"scores": screening.scores, "trojaned": screening.trojaned}, {"figures": figures})

    def stream(self, case: Case) -> tuple[Samples, Any, Mask]:
        """Return inputs under their true labels, the same as they are screened, and which carry the trigger."""
        rng = np.random.default_rng([case.cell.seed, 4])
        rows = np.sort(rng.permutation(len(case.test))[: self.inputs])
        inputs, (stamped, victims) = case.test[rows], case.trojaned
        carrying = victims[rows] & (rng.random(len(rows)) < self.trojaned)
        images = np.array(inputs.inputs)
        images[carrying] = stamped[np.cumsum(victims)[rows[carrying]] - 1]
        return inputs, images, carrying

    def effort(self, method: type[Any], n_samples: int) -> Effort:
        """Screen the inputs."""
        return Effort(samples=self.inputs)

    def goodness(self, figures: Mapping[str, float | None]) -> float | None:
        """Return TPR − FPR; without trojaned inputs, how far the FPR is from 5 %."""
        return caught(figures.get("tpr"), figures.get("fpr"))

    def headline(self, figures: Mapping[str, float | None]) -> str:
        """Return TPR / FPR in percent."""
        return f"{percent(figures.get('tpr'))} / {percent(figures.get('fpr'))}"
