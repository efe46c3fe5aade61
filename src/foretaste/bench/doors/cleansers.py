"""Door 1, the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from foretaste import cleansers
from foretaste.attacks import Attack, TrojansModel
from foretaste.bench.artefacts import Artefact
from foretaste.bench.case import Case, Stopwatch
from foretaste.bench.cell import digest
from foretaste.bench.doors.door import (
    CAUGHT,
    MODEL_SECONDS,
    REPORT,
    TIME,
    Column,
    Effort,
    Figures,
    caught,
    percent,
    share,
)
from foretaste.bench.methods import hyperparameters
from foretaste.cleansers._base.victim import Victim
from foretaste.cleansers.verdict import Verdict
from foretaste.progress import OnProgress
from foretaste.report.results import save_verdict
from foretaste.report.summary import plain
from foretaste.samples import Samples
from foretaste.training import TrainingPlan


@runtime_checkable
class OnVictim(Protocol):
    """A method that looks into a classifier which it trains on the inspected set.

    A specification that does not set its network, or how that is trained, has it train the one that the table is about.
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
    legend: ClassVar[str] = CAUGHT
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

    def refuses(self, attack: type[Attack] | None, method: type[Any]) -> str | None:
        """Refuse attacks on models, which leave no training set."""
        if attack is not None and issubclass(attack, TrojansModel):
            return "leaves a backdoored model and no training set to cleanse"
        return None

    def refuses_samples(self, samples: Samples) -> str | None:
        """Take all samples."""
        return None

    def fewest_clean(self, method: type[Any]) -> int:
        """Return 0: cleansers do without a clean set, but for few, which say so."""
        return 0

    def prepare(self, method: Any, case: Case) -> None:
        """Train the classifier that the method looks into, if it does, unless another method had the same trained."""
        self.victim_seconds(method, case)

    def victim_seconds(self, method: Any, case: Case) -> float | None:
        """Train that classifier, and return how long it took when it was trained; None if the method needs none.

        The pass over the set that gives its activations counts as training: methods share it, and whichever comes first
        would pay for all.
        """
        if not isinstance(method, OnVictim):
            return None
        watch, settings = Stopwatch(), case.cell.defence.settings
        with watch.running():
            victim = method.victim(case.samples, case.cell.seed, case.workdir(), case.on_progress)
            if isinstance(victim, Victim):
                victim.activations(case.samples, case.on_progress)
        names = ("net", *hyperparameters(TrainingPlan))
        key = digest([case.cell.victim_key, {name: settings.get(name) for name in names}])
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

    def effort(self, method: type[Any], n_samples: int) -> Effort:
        """Judge all of the training set, and train a model on what is left."""
        return Effort(
            samples=n_samples,
            model=self.retrain,
            trainings=int(self.retrain),
            classifier=issubclass(method, OnVictim),
        )

    def goodness(self, figures: Mapping[str, float | None]) -> float | None:
        """Return TPR − FPR; without poison, how far the FPR is from 5 %."""
        return caught(figures.get("tpr"), figures.get("fpr"))

    def headline(self, figures: Mapping[str, float | None]) -> str:
        """Return TPR / FPR in percent."""
        return f"{percent(figures.get('tpr'))} / {percent(figures.get('fpr'))}"
