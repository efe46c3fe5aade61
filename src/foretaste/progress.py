"""How long-running work reports where it is, without knowing who is listening."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One report from a running task.

    Attributes:
        phase: what is going on, for people ("round 2: confuse"); a new phase starts a new bar.
        done: units of the phase that are finished, in [0, total].
        total: units in the phase, > 0.
        note: a short figure to show beside the bar ("loss 0.31, accuracy 97.2 %").
    """

    phase: str
    done: int
    total: int
    note: str = ""


OnProgress = Callable[[Progress], None]
"""Called often; must be cheap and must not raise."""


def silent(progress: Progress) -> None:
    """Listen to nothing: the default."""
