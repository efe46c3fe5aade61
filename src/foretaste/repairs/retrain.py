"""Retrain: cleanse the training set, and train the same network anew on what passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from foretaste.cleansers import cleanse
from foretaste.progress import OnProgress
from foretaste.repairs.repaired import Mended
from foretaste.repairs.tuning import fresh_like, tune
from foretaste.samples import Samples
from foretaste.training import TrainingPlan, check


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Close the loop with door 1: find the poison, take it out, and train a net of the same architecture.

    Attributes:
        cleanser: the method that finds the poison, as ``foretaste cleanse --list`` names it.
        epochs: passes over what passed, ≥ 1.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "retrain"
    summary: ClassVar[str] = "cleanses the training set and trains anew; needs the training set"
    needs_training_set: ClassVar[bool] = True
    fewest_clean: ClassVar[int] = 0

    cleanser: str = "confusion-training"
    epochs: int = TrainingPlan.epochs

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "epochs must be 1 or more")

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        """Cleanse and train; see ``Repair``."""
        assert train is not None
        fresh = fresh_like(net, self.name, seed)
        verdict = cleanse(train, clean, method=self.cleanser, seed=seed, on_progress=on_progress)
        plan = TrainingPlan(epochs=self.epochs)
        tune(
            fresh,
            train[~verdict.flagged],
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            learning_rate=plan.learning_rate,
            seed=seed,
            phase=self.name,
            on_progress=on_progress,
            shift=plan.shift,
        )
        condemned = [train.classes[label] for label in verdict.suspect_classes]
        facts = {"cleanser": self.cleanser, "flagged": int(verdict.flagged.sum()), "condemned classes": condemned}
        notes = verdict.notes
        if not verdict.flagged.any():
            notes = (*notes, "no poison was found: the model was trained anew on the whole set")
        return Mended(net=fresh, facts=facts, notes=notes)
