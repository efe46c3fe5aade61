"""The places at which poison is stopped: which methods stand there, what they are tried on, how they are judged.

A door is a frozen dataclass; its fields are the conditions of the trial, which a specification sets under
``[doors.NAME]``. It needs the members of ``Door`` and a name in ``DOORS``: specification, runner and report take all
else from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from sklearn.metrics import roc_auc_score

from foretaste import cleansers, guards
from foretaste.attacks import Attack, TrojansModel
from foretaste.attacks._base.attack import check_range, succeeded
from foretaste.bench.artefacts import Artefact
from foretaste.bench.case import Case, Stopwatch
from foretaste.bench.cell import digest
from foretaste.bench.methods import built
from foretaste.classifiers.torch_module import TorchModule
from foretaste.cleansers.verdict import Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress
from foretaste.report.results import save_verdict
from foretaste.report.summary import plain
from foretaste.samples import Labels, Mask, Samples

Figures = dict[str, float | None]
"""Figures by column; None where there is nothing to measure."""
REPORT = "report.html"
"""The file of a cell's own report, beside its result."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure that a door's methods are judged by.

    Attributes:
        key: its name in result files.
        title: its name in tables.
        unit: "share" in [0, 1], "seconds", "milliseconds" or "number".
        best: which end is better, or None if neither is.
    """

    key: str
    title: str
    unit: Literal["share", "seconds", "milliseconds", "number"]
    best: Literal["high", "low"] | None = None


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a method has to do.

    Attributes:
        samples: how many it looks at.
        model: whether the model that is trained on the poisoned set is needed, for the method or to judge it.
        trainings: how many more models are trained to judge it.
    """

    samples: int
    model: bool = True
    trainings: int = 0


@runtime_checkable
class Door(Protocol):
    """What the runner and the report need to know of one kind of defence."""

    title: ClassVar[str]
    """What tables call its methods ("Cleansers")."""
    columns: ClassVar[tuple[Column, ...]]
    """What they are judged by, in the order of the table."""

    def find(self, name: str) -> type[Any]:
        """Return the method of this name, a frozen dataclass.

        Raises:
            UsageError: there is none.
        """
        ...

    def refuses(self, attack: type[Attack] | None) -> str | None:
        """Say in half a sentence why its methods cannot be tried on an attack; None if they can."""
        ...

    def refuses_samples(self, samples: Samples) -> str | None:
        """Say in half a sentence why its methods cannot be tried on samples; None if they can."""
        ...

    def prepare(self, method: Any, case: Case) -> None:
        """Make what several methods of the door share on a case, before any of them is measured."""
        ...

    def measure(self, method: Any, case: Case) -> Figures:
        """Try a method, and return its figures. A report of its own goes to ``case.cell_file(REPORT)``.

        What takes long is kept by ``case.once``, so that a run that is started again does not do it twice.

        Raises:
            ForetasteError: the method cannot work on the case, or fails.
        """
        ...

    def effort(self, n_samples: int) -> Effort:
        """Return what one method has to do on a training set of this size, to tell how long it will take."""
        ...

    def goodness(self, figures: Mapping[str, float | None]) -> float | None:
        """Return how good figures are in one number, from 0 (useless) to 1, for the heat map; None if unknown."""
        ...

    def headline(self, figures: Mapping[str, float | None]) -> str:
        """Return the figures that say most, as short as the heat map needs them."""
        ...


TIME = (
    Column(key="seconds", title="seconds", unit="seconds", best="low"),
    Column(key="cpu_seconds", title="CPU seconds", unit="seconds", best="low"),
)
"""What every door's methods cost."""
MODEL_SECONDS = "model_seconds"
"""A figure without a column: what it took to train the model of the trial. It tells how long other trainings take."""
ALARMING = 0.05
"""False-positive rate at which a method is as good as none on a set without poison: it throws away a twentieth."""


def caught(tpr: float | None, fpr: float | None) -> float | None:
    """Return how well poison is told from the rest: found minus false alarms, or without poison, how few alarms."""
    if fpr is None:
        return None
    if tpr is None:
        return 1 - min(fpr / ALARMING, 1.0)
    return max(tpr - fpr, 0.0)


def percent(value: float | None) -> str:
    """Write a share in percent, without a false 0 or 100: 0, 0.01, 0.10, 1.0, 99.0, 99.90, 99.99, 100."""
    if value is None:
        return "–"
    if value <= 0 or value >= 1:
        return f"{100 * value:.0f}"
    digits = 1 if 0.01 <= value <= 0.99 else 2
    return f"{min(max(100 * value, 0.01), 99.99):.{digits}f}"


@runtime_checkable
class OnVictim(Protocol):
    """A method that looks into a classifier which it trains on the inspected set.

    A specification that does not set its network has it train the one that the table is about.
    """

    def victim(self, samples: Samples, seed: int, workdir: Path | None, on_progress: OnProgress) -> object:
        """Return the classifier; one that is in ``workdir`` already is not trained again."""
        ...


@dataclass(frozen=True, kw_only=True)
class CleanserDoor:
    """The training data: methods that find poison before a model learns from it.

    Attributes:
        retrain: whether a model is trained on what each method leaves, to see its accuracy and the attack's success.
    """

    title: ClassVar[str] = "Cleansers"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(key="tpr", title="TPR", unit="share", best="high"),
        Column(key="fpr", title="FPR", unit="share", best="low"),
        Column(key="auroc", title="AUROC", unit="share", best="high"),
        Column(key="cover_flagged", title="cover flagged", unit="share"),
        Column(key="accuracy_before", title="accuracy before", unit="share"),
        Column(key="accuracy_after", title="accuracy after", unit="share", best="high"),
        Column(key="attack_success_before", title="attack success before", unit="share"),
        Column(key="attack_success_after", title="attack success after", unit="share", best="low"),
        *TIME,
        Column(key="victim_seconds", title="its victim's training", unit="seconds", best="low"),
    )

    retrain: bool = True

    def find(self, name: str) -> type[Any]:
        """Return the cleanser of this name."""
        return cleansers.find(name)

    def refuses(self, attack: type[Attack] | None) -> str | None:
        """Refuse attacks on models, which leave no training set."""
        if attack is not None and issubclass(attack, TrojansModel):
            return "leaves a backdoored model and no training set to cleanse"
        return None

    def refuses_samples(self, samples: Samples) -> str | None:
        """Take all samples."""
        return None

    def prepare(self, method: Any, case: Case) -> None:
        """Train the classifier that the method looks into, if it does, unless another method had the same trained."""
        self.victim_seconds(method, case)

    def victim_seconds(self, method: Any, case: Case) -> float | None:
        """Train that classifier, and return how long it took when it was trained; None if the method needs none."""
        if not isinstance(method, OnVictim):
            return None
        watch, settings = Stopwatch(), case.cell.defence.settings
        with watch.running():
            method.victim(case.samples, case.cell.seed, case.workdir(), case.on_progress)
        key = digest([case.cell.victim_key, {name: settings.get(name) for name in ("net", "width", "epochs")}])
        seconds: float = case.once("training", key, lambda: Artefact({}, {"seconds": watch.wall})).facts["seconds"]
        return seconds

    def measure(self, method: Any, case: Case) -> Figures:
        """Let the method judge the training set, and train a model on what it leaves."""
        kept = case.once("verdict", case.cell.key, lambda: self.judge(method, case))
        figures: Figures = {key: kept.facts[key] for key in ("tpr", "fpr", "auroc", "cover_flagged")}
        if self.retrain:
            before, flagged = case.victim, kept.arrays["flagged"]
            figures |= {
                "accuracy_before": before.accuracy,
                "attack_success_before": before.attack_success,
                MODEL_SECONDS: before.seconds,
            }
            # Who throws all but one class away leaves nothing to train on, and that is told by the FPR.
            if len(np.unique(case.samples.labels[~flagged])) >= 2:
                after = case.retrained(flagged)
                figures |= {"accuracy_after": after.accuracy, "attack_success_after": after.attack_success}
        return figures | {key: kept.facts[key] for key in ("seconds", "cpu_seconds", "victim_seconds")}

    def judge(self, method: Any, case: Case) -> Artefact:
        """Return the verdict's scores and flags, with how it compares with the truth, and leave its report."""
        samples, cell, watch = case.samples, case.cell, Stopwatch()
        victim_seconds = self.victim_seconds(method, case)
        with watch.running():
            verdict: Verdict = cleansers.apply(
                method, samples, case.clean, seed=cell.seed, workdir=case.workdir(), on_progress=case.on_progress
            )
        with TemporaryDirectory() as folder:
            save_verdict(
                Path(folder),
                samples,
                verdict,
                source=cell.title(),
                settings=cell.defence.settings,
                clean_size=cell.data.clean or None,
                truth_poison=case.poison,
                truth_cover=case.cover,
            )
            case.store.write(case.cell_file(REPORT), (Path(folder) / REPORT).read_bytes())
        detection = verdict.compare(case.poison)
        facts = {
            "tpr": plain(detection.tpr),
            "fpr": plain(detection.fpr),
            "auroc": plain(detection.auroc),
            "cover_flagged": share(verdict.flagged[case.cover]),
            "seconds": watch.wall,
            "cpu_seconds": watch.cpu,
            "victim_seconds": victim_seconds,
        }
        return Artefact({"scores": verdict.scores, "flagged": verdict.flagged}, facts)

    def effort(self, n_samples: int) -> Effort:
        """Judge all of the training set, and train a model on what is left."""
        return Effort(samples=n_samples, model=self.retrain, trainings=int(self.retrain))

    def goodness(self, figures: Mapping[str, float | None]) -> float | None:
        """Return TPR − FPR; without poison, how far the FPR is from 5 %."""
        return caught(figures.get("tpr"), figures.get("fpr"))

    def headline(self, figures: Mapping[str, float | None]) -> str:
        """Return TPR / FPR in percent."""
        return f"{percent(figures.get('tpr'))} / {percent(figures.get('fpr'))}"


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

    def refuses(self, attack: type[Attack] | None) -> str | None:
        """Take all attacks."""
        return None

    def refuses_samples(self, samples: Samples) -> str | None:
        """Refuse feature vectors."""
        return "has feature vectors, and guards screen images" if samples.images is None else None

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

    def effort(self, n_samples: int) -> Effort:
        """Screen the inputs."""
        return Effort(samples=self.inputs)

    def goodness(self, figures: Mapping[str, float | None]) -> float | None:
        """Return TPR − FPR; without trojaned inputs, how far the FPR is from 5 %."""
        return caught(figures.get("tpr"), figures.get("fpr"))

    def headline(self, figures: Mapping[str, float | None]) -> str:
        """Return TPR / FPR in percent."""
        return f"{percent(figures.get('tpr'))} / {percent(figures.get('fpr'))}"


def share(mask: Mask) -> float | None:
    """Return the share that is true, None of nothing."""
    return float(mask.mean()) if mask.size else None


DOORS: dict[str, type[Door]] = {"cleansers": CleanserDoor, "guards": GuardDoor}
"""The doors by name, which is also the name of their methods' tables in a specification."""


def opened(name: str, conditions: Mapping[str, Any]) -> Door:
    """Return a door with these conditions.

    Raises:
        UsageError: a value is of a wrong type or out of range.
    """
    door: Door = built(DOORS[name], conditions)
    return door
