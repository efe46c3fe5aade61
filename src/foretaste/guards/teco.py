"""TeCo: corrupt the input in many ways; with a trigger some corruptions turn the answer far sooner than others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from foretaste.classifiers.classifier import Classifier
from foretaste.guards import check_clean
from foretaste.guards.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from foretaste.guards.threshold_screener import Scored, ThresholdScreener, chunk_size
from foretaste.progress import OnProgress, silent
from foretaste.samples import Images, Samples


@dataclass(frozen=True, kw_only=True)
class TeCo:
    """Suspect inputs that withstand common corruptions unevenly (Liu et al. 2023, arXiv:2303.18191).

    For each corruption of ``foretaste.guards.corruptions``, the severity in 1 … 5 that first turns the label is found,
    or 6 if none does. A score is the standard deviation of these over the corruptions. Labels are enough. It is blind
    to triggers that withstand all corruptions or none, and weak on models that clean images' corruptions turn
    unevenly too.
    """

    name: ClassVar[str] = "teco"
    summary: ClassVar[str] = "labels that withstand common corruptions unevenly (Liu et al. 2023)"
    needs_scores: ClassVar[bool] = False

    def calibrate(
        self,
        classifier: Classifier,
        clean: Samples,
        *,
        false_alarm_rate: float,
        seed: int,
        on_progress: OnProgress = silent,
    ) -> ThresholdScreener:
        """Learn what clean inputs look like to this classifier; see ``GuardMethod``."""
        check_clean(classifier, clean, false_alarm_rate)

        def score(images: Images) -> Scored:
            labels = classifier.classify(images).labels
            turned = np.full((len(CORRUPTIONS), len(images)), SEVERITIES + 1)
            # Severity by severity, so that what has turned already need not be asked again.
            for severity in range(1, SEVERITIES + 1):
                kinds, rows = np.nonzero(turned > SEVERITIES)
                asked = [
                    corrupt(images[rows[kinds == kind]], name, severity, seed=seed)
                    for kind, name in enumerate(CORRUPTIONS)
                ]
                now = classifier.classify(np.concatenate(asked)).labels
                flipped = now != labels[rows]
                turned[kinds[flipped], rows[flipped]] = severity
            queries = 1 + np.minimum(turned, SEVERITIES).sum(axis=0, dtype=np.int64)
            return Scored(labels, turned.std(axis=0), queries)

        return ThresholdScreener(
            score,
            clean,
            name=self.name,
            false_alarm_rate=false_alarm_rate,
            chunk=chunk_size(clean.sample_shape, len(CORRUPTIONS)),
            on_progress=on_progress,
        )
