"""Fine-tuning: train on with clean samples, and let the model forget what they do not need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from foretaste.progress import OnProgress
from foretaste.repairs.repaired import Mended
from foretaste.repairs.tuning import tune
from foretaste.samples import Samples
from foretaste.training import check


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Train all weights further on the clean set, as Fine-Pruning does it after the pruning (arXiv:1805.12185).

    Attributes:
        epochs: passes over the clean set, ≥ 1.
        learning_rate: the highest, > 0. A small one leaves most backdoors where they are.
        batch_size: samples per step, ≥ 2.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "fine-tuning"
    summary: ClassVar[str] = "trains on with clean samples"
    needs_training_set: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 20

    epochs: int = 40
    learning_rate: float = 0.2
    batch_size: int = 32

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "epochs must be 1 or more")
        check(self.learning_rate > 0, "learning_rate must be above 0")
        check(self.batch_size >= 2, "batch_size must be 2 or more")

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        """Train on; see ``Repair``."""
        assert clean is not None
        tune(
            net,
            clean,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            phase=self.name,
            on_progress=on_progress,
        )
        return Mended(net=net)
