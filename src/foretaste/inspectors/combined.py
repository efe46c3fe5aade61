"""Every inspector that gives a verdict and applies, under one false-alarm rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from foretaste.errors import UsageError
from foretaste.inspectors.debackdoor import DeBackdoor
from foretaste.inspectors.diagnosis import Evidence, Finding, Inspector, Reconstruction, Subject
from foretaste.inspectors.mm_bd import MMBD
from foretaste.inspectors.neural_cleanse import NeuralCleanse
from foretaste.progress import OnProgress
from foretaste.samples import Samples

LEAST_P = 1e-15
"""A smaller p-value is not told apart from 0, so that its logarithm stays finite."""


@dataclass(frozen=True, kw_only=True)
class Combined:
    """Ask all inspectors that give a verdict and that the model and the clean set are enough for.

    ``final-layer``, a first look, is not among them: it names classes of clean models too often. With m of them, each
    p-value is multiplied by m (Bonferroni), so that all together keep the false-alarm rate however much they agree. The
    statistic is minus the decimal logarithm of that p-value.
    """

    name: ClassVar[str] = "all"
    summary: ClassVar[str] = "mm-bd, neural-cleanse and debackdoor, as far as they apply, under one false-alarm rate"
    needs_weights: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 0
    fewest_classes: ClassVar[int] = 2

    def look(self, subject: Subject, clean: Samples | None, *, seed: int, on_progress: OnProgress) -> Finding:
        """Ask each inspector; see ``Inspector``.

        Raises:
            UsageError: none applies.
        """
        parts: list[Inspector] = [MMBD(), NeuralCleanse(), DeBackdoor()]
        missing = {part.name: lack(part, subject, clean) for part in parts}
        asked = [part for part in parts if not missing[part.name]]
        notes = [f"{name} was left out: {reason}" for name, reason in missing.items() if reason]
        if not asked:
            raise UsageError(f"no inspector applies; {'; '.join(notes)}")
        best: dict[tuple[int | None, int | None], Evidence] = {}
        reconstructions: list[Reconstruction] = []
        for part in asked:
            finding = part.look(subject, clean, seed=seed, on_progress=on_progress)
            notes += [f"{part.name}: {note}" for note in finding.notes]
            reconstructions += finding.reconstructions
            for entry in finding.evidence:
                p_value = min(len(asked) * entry.p_value, 1.0)
                statistic = -math.log10(max(p_value, LEAST_P))
                key = (entry.source, entry.target)
                if key not in best or p_value < best[key].p_value:
                    reason = f"{part.name}: {entry.reason}"
                    best[key] = replace(entry, p_value=p_value, statistic=statistic, reason=reason)
        return Finding(evidence=tuple(best.values()), reconstructions=tuple(reconstructions), notes=tuple(notes))


def lack(part: Inspector, subject: Subject, clean: Samples | None) -> str:
    """Return what an inspector would need and has not, or an empty text."""
    if part.needs_weights and subject.weights is None:
        return "the model is a black box"
    if len(subject.classes) < part.fewest_classes:
        return f"it compares {part.fewest_classes} classes or more, and the model has {len(subject.classes)}"
    n_clean = 0 if clean is None else len(clean)
    return f"it needs {part.fewest_clean} clean images, not {n_clean}" if n_clean < part.fewest_clean else ""
