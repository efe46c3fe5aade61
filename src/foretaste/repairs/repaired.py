"""What every repair returns, and what every repair is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from torch import nn

from foretaste.progress import OnProgress
from foretaste.samples import Samples


@dataclass(frozen=True, kw_only=True, eq=False)
class Mended:
    """What a method made of a model.

    Attributes:
        net: the model, of the same kind, preprocessing and classes; on the CPU.
        facts: what a reader may want to know, by name: numbers and texts that JSON can hold.
        notes: sentences that a reader should know.
    """

    net: nn.Module
    facts: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Repaired:
    """A model from which a backdoor was taken out, if it had one and the method could.

    Attributes:
        net: the model, on the CPU and in evaluation mode; the one that was given is left as it was.
        method: the repair's registered name.
        seed: what the run's random numbers came from.
        seconds: wall time.
        facts: what the method tells of its work, by name.
        notes: sentences that a reader should know.
    """

    net: nn.Module
    method: str
    seed: int
    seconds: float
    facts: Mapping[str, object]
    notes: tuple[str, ...] = ()


@runtime_checkable
class Repair(Protocol):
    """A way to take a backdoor out: a frozen dataclass whose fields are its hyperparameters."""

    name: ClassVar[str]
    """The registered name."""
    summary: ClassVar[str]
    """One line for ``foretaste repair --list``."""
    needs_training_set: ClassVar[bool]
    """Whether it works on the set that the model was trained on, poison included."""
    fewest_clean: ClassVar[int]
    """Clean samples that it needs at least; 0 if it needs none."""

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        """Take the backdoor out.

        Args:
            net: the model, on the CPU and in evaluation mode, which may be changed in place. It takes raw inputs and
                returns logits.
            train: the set that it was trained on, or None if the method needs none.
            clean: trusted samples, at least ``fewest_clean``; None only if the method needs none.
            seed: where all random numbers come from.
            on_progress: called as the work goes on.

        Raises:
            UsageError: the method cannot work on this model.
            ForetasteError: the loss became infinite or NaN.
        """
        ...
