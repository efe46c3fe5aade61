"""AGPD: in a poisoned class, the gradients of the activations point in two directions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from foretaste.cleansers._base.axes import plane
from foretaste.cleansers._base.conclusion import anomaly_index, conclude, references
from foretaste.cleansers._base.victim import Activations, OnVictim
from foretaste.cleansers.verdict import Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Labels, Mask, Samples
from foretaste.training import check

Rows = NDArray[np.float64]

BINS = 99
"""Of the histograms of closeness that the rounds of the filter are compared by, over [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class AGPD(OnVictim):
    """Follow the gradients of a class away from the clean ones' direction (Yuan et al., ICLR 2025, arXiv:2312.06230).

    For each stage of the classifier, a sample is the derivative of its label's logit by the stage's output, averaged
    over places. All that counts is its direction. In each class the clean samples' mean direction and the sample that
    points farthest from it are the two poles, and the class's *dispersion* is how differently its samples are close to
    the two. Of all stages the one is taken at which a class's dispersion is most unusual among the classes. If it is
    unusual enough, the class's samples are moved, nearest first, from the clean pole to the other, whose direction
    follows; the rounds end where the closeness of the rest has stopped to change.

    If no class is unusual, because all may be poisoned, a class is condemned by its dispersion alone.

    Works on images and on feature vectors.

    Attributes:
        anomaly: a class is condemned if its dispersion is this many robust standard deviations above the median of the
            classes, at the stage where this is largest, > 0; the paper has e².
        dispersion: otherwise if its dispersion at one of the last three stages is above this, in (0, 2); the authors'
            code has 0.3.
        step: in each round those go whose closeness to the clean pole is in this lowest share of its range, in (0, 1);
            the paper's τ, 0.05.
        window: the rounds end at the start of this many rounds that change least, ≥ 2; the authors' code has 10, which
            small classes do not last for.
        substitute: samples of the inspected set that stand in for a missing clean set, ≥ 1.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "agpd"
    summary: ClassVar[str] = "classes whose activation gradients point in two directions (arXiv:2312.06230)"

    anomaly: float = 7.389
    dispersion: float = 0.3
    step: float = 0.05
    window: int = 3
    substitute: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.anomaly > 0, "anomaly must be above 0")
        check(0 < self.dispersion < 2, "dispersion must be in (0, 2)")
        check(0 < self.step < 1, "step must be in (0, 1)")
        check(self.window >= 2, "window must be 2 or more")
        check(self.substitute >= 1, "substitute must be 1 or more")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``."""
        start = time.perf_counter()
        victim = self.victim(samples, seed, workdir, on_progress)
        inspected = victim.activations(samples, on_progress)
        trusted, notes = references(samples, clean, self.substitute, np.random.default_rng(seed))
        known = victim.activations(trusted, on_progress)
        return self.judge(samples, inspected, trusted.labels, known, seed=seed, start=start, notes=notes)

    def judge(
        self,
        samples: Samples,
        inspected: Activations,
        trusted_labels: Labels,
        known: Activations,
        *,
        seed: int,
        start: float,
        notes: tuple[str, ...] = (),
    ) -> Verdict:
        """Judge the samples by their gradients and those of trusted ones.

        Raises:
            UsageError: of no class is there a trusted sample that the classifier gets right.
        """
        n_classes = len(samples.classes)
        right = known.logits.argmax(axis=1) == trusted_labels
        judged = np.intersect1d(samples.labels, trusted_labels[right])
        if not judged.size:
            raise UsageError(f"{self.name} needs a clean sample that the classifier gets right, and there is none")
        if missing := np.setdiff1d(samples.labels, judged).size:
            notes = (
                *notes,
                f"classes without a clean sample that the classifier gets right were not judged: {missing}",
            )
        dispersions, anomalies = np.zeros((len(inspected.gradients), n_classes)), np.zeros(n_classes)
        poles: list[dict[int, Rows]] = []
        for stage, gradients in enumerate(inspected.gradients):
            poles.append({})
            for label in judged:
                pole = known.gradients[stage][right & (trusted_labels == label)].mean(axis=0, dtype=np.float64)
                poles[stage][int(label)] = unit(pole)
                own = unit(gradients[samples.labels == label])
                dispersions[stage, label] = dispersion_of(own, poles[stage][int(label)])
        unusual = np.array([anomaly_index(row[judged]) for row in dispersions])
        best = int(unusual.max(axis=1, initial=0.0).argmax())
        anomalies[judged] = unusual[best]
        statistics, threshold = anomalies, self.anomaly
        if unusual.max(initial=0.0) < self.anomaly:
            late = np.arange(max(len(dispersions) - 3, 0), len(dispersions))
            best = int(late[(dispersions[late] > self.dispersion).sum(axis=1).argmax()])
            statistics, threshold = dispersions[best], self.dispersion
        scores, suspects = np.zeros(len(samples)), np.zeros(len(samples), dtype=np.bool_)
        for label in judged:
            members = np.flatnonzero(samples.labels == label)
            own, pole = unit(inspected.gradients[best][members]), poles[best][int(label)]
            scores[members] = 1 - own @ pole
            if statistics[label] >= threshold:
                suspects[members] = self.follow(own, pole)
        return conclude(
            self.name,
            samples,
            scores=scores,
            suspects=suspects,
            statistics=statistics,
            threshold=threshold,
            reason=lambda label: (
                f"the gradients at stage {best + 1} have a dispersion of {dispersions[best, label]:.2f}, "
                f"{anomalies[label]:.1f} robust standard deviations above the median of the classes"
            ),
            seed=seed,
            start=start,
            notes=notes,
            embedding=plane(inspected.gradients[best]),
        )

    def follow(self, own: Rows, clean: Rows) -> Mask:
        """Return which samples of a class lie towards the pole away from the clean one, ``bool (n,)``.

        Args:
            own: unit gradients of the class, ``(n, C)``.
            clean: the clean pole, ``(C,)``.
        """
        moved, near, changes = [np.array([(own @ clean).argmin()])], np.empty(0), list[float]()
        rest = np.delete(np.arange(len(own)), moved[0])
        while len(rest):
            before, near = near, closeness(own[rest], clean, own[np.concatenate(moved)].mean(axis=0))
            if len(before):
                changes.append(divergence(histogram(before), histogram(near)))
            nearest = near <= near.min() + self.step * np.ptp(near)
            moved.append(rest[nearest])
            rest = rest[~nearest]
        suspects = np.zeros(len(own), dtype=np.bool_)
        suspects[np.concatenate(moved[: 1 + settled(changes, self.window)])] = True
        return suspects


def unit(rows: NDArray[np.floating]) -> Rows:
    """Return rows ``(…, C)`` of length 1; a row of zeros stays."""
    rows = np.asarray(rows, dtype=np.float64)
    units: Rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return units


def dispersion_of(own: Rows, clean: Rows) -> float:
    """Return how differently the samples of a class are close to its two poles, in [0, 2].

    It is the root mean square of the difference of the cosines with the clean pole and with the sample that is farthest
    from it, over all others.

    Args:
        own: unit gradients of the class, ``(n, C)``.
        clean: the clean pole, of length 1, ``(C,)``.
    """
    cosines = own @ clean
    farthest = int(cosines.argmin())
    differences = np.delete(cosines - own @ own[farthest], farthest)
    return float(np.sqrt(np.mean(differences**2))) if len(differences) else 0.0


def closeness(own: Rows, clean: Rows, other: Rows) -> NDArray[np.float64]:
    """Return how close unit rows ``(n, C)`` are to the clean pole, ``(n,)``: 0 is at the other, 1 at the clean one."""
    to_clean, to_other = 1 - own @ clean, 1 - own @ unit(other)
    near: NDArray[np.float64] = to_other / np.maximum(to_clean + to_other, 1e-12)
    return near


def histogram(near: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares of closeness values ``(n,)`` in equal bins over [0, 1]."""
    return np.histogram(near, bins=BINS, range=(0, 1))[0] / len(near)


def divergence(some: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the Jensen-Shannon distance of two histograms; rounding errors never make it NaN."""
    middle = (some + others) / 2
    return float(np.sqrt(max(rel_entr(some, middle).sum() + rel_entr(others, middle).sum(), 0.0) / 2))


def settled(changes: list[float], window: int) -> int:
    """Return the round from which on so many changes are small and alike: least mean plus five standard deviations."""
    if len(changes) < window:
        return len(changes)
    views = np.lib.stride_tricks.sliding_window_view(np.array(changes), window)
    return int((views.mean(axis=1) + 5 * views.std(axis=1)).argmin())
