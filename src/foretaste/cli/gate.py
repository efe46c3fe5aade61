"""When a run ends in exit code 1: the policy that ``--fail-on`` sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from foretaste.errors import UsageError

FOUND = 1
"""The exit code of a run that found what it looks for."""


@dataclass(frozen=True)
class Gate:
    """A policy.

    Attributes:
        level: what has to be found: "never", "found", or a level that only some commands know.
        share: share of the samples that has to be flagged at least, in [0, 1]; decimal, so that 7 of 100 are 7 %.
    """

    level: str
    share: Decimal = Decimal()

    @classmethod
    def parse(cls, text: str, levels: Sequence[str] = ("never", "found")) -> Self:
        """Read what ``--fail-on`` says: one of the levels, or a share such as ``0.01`` or ``1%``, of what is found.

        Raises:
            UsageError: it is neither.
        """
        if text in levels:
            return cls(text)
        try:
            share = Decimal(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
            possible = 0 < share <= 1
        except ArithmeticError:  # no number, or NaN
            possible = False
        if not possible:
            listing = ", ".join(levels)
            raise UsageError(f"--fail-on takes {listing}, or a share above 0 and up to 1 (0.01 or 1%), not {text}")
        return cls("found", share)

    def exit_code(self, reached: Mapping[str, bool], n_flagged: int, n_samples: int) -> int:
        """Return the exit code of a run.

        Args:
            reached: for each level but "never", whether what it asks for was found.
            n_flagged: samples that are flagged.
            n_samples: samples in all.
        """
        fails = self.level != "never" and reached[self.level] and n_flagged >= self.share * n_samples
        return FOUND if fails else 0
