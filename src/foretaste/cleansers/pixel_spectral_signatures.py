"""Pixel spectral signatures: a pattern on a part of a class is the direction in which its pixels vary as no other's."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from foretaste.cleansers._base.conclusion import conclude, require_images
from foretaste.cleansers._base.near_duplicates import enriched
from foretaste.cleansers._base.pixel_features import Whiten, contrast
from foretaste.cleansers.verdict import Verdict
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Mask, Samples
from foretaste.training import check, permutation

AT_ONCE = 1000
LEAST_CHANCE = 1e-300
"""Evidence is not counted beyond this."""
TURNS = 30
"""Of the power iteration that finds a direction."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pattern:
    """What parts a class in two.

    Attributes:
        carriers: rows of the samples which carry it, ``(n,)``; none if the class does not part.
        statistic: with a clean set the negative decimal logarithm of the chance that so few of the class's clean
            samples would carry the pattern, were it natural; else by how many nats two distributions explain an image
            of the class better than one. 0 if the class does not part.
        threshold: what the statistic has to reach, > 0.
        reason: what was seen, as a sentence.
    """

    carriers: NDArray[np.intp]
    statistic: float
    threshold: float
    reason: str

    @property
    def condemns(self) -> bool:
        """Whether the class is condemned by it."""
        return self.statistic >= self.threshold


@dataclass(frozen=True, kw_only=True)
class PixelSpectralSignatures:
    """Flag the images that carry a pattern which parts their class in two, by their pixels alone.

    Each pixel's difference from its neighbours is whitened with the covariance within classes, so that classes on the
    whole vary in each direction as much as in any other. A pattern on a good part of one class is then the direction
    in which it varies most: a spectral signature (Tran et al. 2018, arXiv:1811.00636), of pixels instead of a trained
    network's features. Each fold is projected on the direction of the others. A class parts if two normal distributions
    explain its projections better than one does and their means are apart; carriers are those in the one further from
    the clean samples, without a clean set those in the longer tail.

    Classes part by nature, too: two kinds of backgrounds, say. Of a natural pattern clean samples have their share. A
    class that parts is condemned if theirs is smaller than chance would have it. Without a clean set it is condemned in
    any case, and natural patterns are flagged as well.

    No classifier is trained, and nothing is asked of the labels but which images belong together. So poison is found
    whose labels are right, and so is a benign mark that no clean sample has.

    Attributes:
        folds: parts of the set that are projected on the direction of the others, ≥ 2.
        gain: a class parts only if two distributions explain an image better than one by this many nats on average,
            > 0, by the Bayesian information criterion. Most classes of GTSRB and CIFAR-10 stay below, the waves of SIG
            reach 0.16 on a quarter of GTSRB and 0.4 on all of it.
        separation: and if their means are this many standard deviations apart (Ashman's D), > 0; less is one hump.
        fewest: and if this many of the carriers are not near-duplicates of each other, ≥ 1.
        most: samples of a class at most that its direction is taken from, ≥ 2 · ``fewest``.
        largest_side: larger images are shrunk to this side, in pixels, ≥ 8; the work grows with the sixth power of it.
        samples_per_value: images are shrunk further until there are so many samples for each of their values, ≥ 1: a
            covariance from fewer makes odd images of any class look like a pattern.
        ridge: added to the variance of every contrast, as a share of their mean, > 0.
        false_condemnations: chance that a set without a pattern has a condemned class, given a clean set, in (0, 1).

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "pixel-spectral-signatures"
    summary: ClassVar[str] = "a pattern that parts a class in two, by its pixels alone (after arXiv:1811.00636)"

    folds: int = 3
    gain: float = 0.15
    separation: float = 2.0
    fewest: int = 10
    most: int = 5000
    largest_side: int = 32
    samples_per_value: int = 4
    ridge: float = 0.01
    false_condemnations: float = 0.01

    def __post_init__(self) -> None:
        check(self.folds >= 2, "folds must be 2 or more")
        check(self.gain > 0 and self.separation > 0 and self.ridge > 0, "gain, separation and ridge must be above 0")
        check(self.fewest >= 1, "fewest must be 1 or more")
        check(self.most >= 2 * self.fewest, "most must be at least twice fewest")
        check(self.largest_side >= 8, "largest_side must be 8 or more")
        check(self.samples_per_value >= 1, "samples_per_value must be 1 or more")
        check(0 < self.false_condemnations < 1, "false_condemnations must be in (0, 1)")

    def inspect(
        self,
        samples: Samples,
        clean: Samples | None,
        *,
        seed: int = 0,
        workdir: Path | None = None,
        on_progress: OnProgress = silent,
    ) -> Verdict:
        """Judge every sample; arguments as for every ``Cleanser``. Nothing is kept in ``workdir``.

        Raises:
            UsageError: the samples are feature vectors.
        """
        start = time.perf_counter()
        require_images(self.name, samples)
        distances, patterns = self.project(samples, clean, seed, on_progress)
        suspects = np.zeros(len(samples), dtype=np.bool_)
        suspects[np.concatenate([pattern.carriers for pattern in patterns])] = True
        return conclude(
            self.name,
            samples,
            scores=distances,
            suspects=suspects,
            statistics=np.array([pattern.statistic for pattern in patterns]),
            threshold=np.array([pattern.threshold for pattern in patterns]),
            reason=lambda label: patterns[label].reason,
            seed=seed,
            start=start,
            notes=()
            if clean is not None
            else ("no clean set was given: of a class that parts in two, the longer tail was flagged",),
        )

    def project(
        self, samples: Samples, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> tuple[NDArray[np.float64], list[Pattern]]:
        """Return how far each image lies along its class's direction, and the pattern of each class.

        Returns:
            ``float64 (N,)``, in standard deviations from the median of the class; and K patterns.
        """
        fold: NDArray[np.int64] = permutation(len(samples), seed, 0).numpy() % self.folds
        contrasts = Contrasts(samples, self)
        of_clean = Contrasts(samples[:0] if clean is None else clean, self, contrasts.whiten)
        members = [np.flatnonzero(samples.labels == label) for label in range(len(samples.classes))]
        means = [contrasts.mean(rows) for rows in members]
        root = contrasts.root(members, means, self.ridge)
        distances, chosen = np.zeros(len(samples)), np.zeros(len(samples), dtype=np.bool_)
        partings: list[tuple[Parting, NDArray[np.float64]]] = []
        for label, (rows, mean) in enumerate(zip(members, means, strict=True)):
            parting, along_clean = NO_PARTING, np.zeros(0)
            if len(rows) >= 2 * self.fewest:
                some = rows[:: -(-len(rows) // self.most)]
                white = torch.cat([whitened(batch - mean, root) for batch in contrasts.of(some)])
                along = Directions(white, fold[some], self.folds, mean, root)
                distances[rows] = along(contrasts.of(rows))[np.arange(len(rows)), fold[rows]]
                references = np.flatnonzero(of_clean.labels == label)
                if len(references):
                    along_clean = np.median(along(of_clean.of(references)), axis=1)
                parting = part(distances[rows], float(np.median(along_clean)) if len(references) else 0.0)
            partings.append((parting, along_clean))
            if parting.gain >= self.gain and parting.separation >= self.separation:
                chosen[rows[parting.further(distances[rows])]] = True
            on_progress(Progress(phase="project classes", done=label + 1, total=len(members)))
        distinct = np.bincount(
            samples.labels[chosen & ~enriched(samples.inputs, samples.labels, chosen)], minlength=len(members)
        )
        patterns = [
            self.pattern(
                rows,
                rows[chosen[rows] & (count >= self.fewest)],
                parting,
                None if clean is None else along_clean,
                len(members),
            )
            for rows, count, (parting, along_clean) in zip(members, distinct, partings, strict=True)
        ]
        return distances, patterns

    def pattern(
        self,
        rows: NDArray[np.intp],
        carriers: NDArray[np.intp],
        parting: Parting,
        along_clean: NDArray[np.float64] | None,
        n_classes: int,
    ) -> Pattern:
        """Return the pattern of a class, and how surely its clean samples lack it.

        Args:
            rows: of the class, ``(n,)``.
            carriers: those of them which carry the pattern, none if the class does not part.
            parting: how the projections of the class part.
            along_clean: projections of its clean samples, ``(r,)``, or None without a clean set.
            n_classes: K.
        """
        reason = f"two distributions explain an image better than one by {parting.gain:.2f} nats"
        statistic, threshold = parting.gain if len(carriers) else 0.0, self.gain
        if along_clean is not None:
            alike, n_clean = int(np.count_nonzero(parting.further(along_clean))), len(along_clean)
            share = len(carriers) / max(len(rows), 1)
            chance = float(binom.cdf(alike, n_clean, share))
            statistic = 0.0 - math.log10(max(chance, LEAST_CHANCE))
            threshold = -math.log10(self.false_condemnations / n_classes)
            reason += f"; of its {n_clean} clean images {alike} lie with the carriers, {share * n_clean:.1f} by chance"
        return Pattern(carriers=carriers, statistic=statistic, threshold=threshold, reason=reason)


@dataclass(frozen=True, kw_only=True, eq=False)
class Parting:
    """Two normal distributions in place of one.

    Attributes:
        gain: by how many nats they explain a value better than one does, by the Bayesian information criterion.
        separation: how many standard deviations their means are apart (Ashman's D).
        mixture: both distributions, or None if there is nothing to part.
        second: which one is further from the clean samples.
    """

    gain: float
    separation: float
    mixture: GaussianMixture | None
    second: int = 0

    def further(self, values: NDArray[np.float64]) -> Mask:
        """Return which values belong to the distribution that is further from the clean samples, ``bool (m,)``."""
        if self.mixture is None or not len(values):
            return np.zeros(len(values), dtype=np.bool_)
        mean, other = self.mixture.means_[self.second, 0], self.mixture.means_[1 - self.second, 0]
        # A wide distribution also reaches beyond the other one.
        beyond: Mask = (values - other) * (mean - other) > 0
        belongs: Mask = self.mixture.predict(values[:, None]) == self.second
        return beyond & belongs


NO_PARTING = Parting(gain=0.0, separation=0.0, mixture=None)
"""Of values that do not part."""


def part(values: NDArray[np.float64], natural: float) -> Parting:
    """Fit two normal distributions to values.

    Args:
        values: of the images of a class, ``(n,)``.
        natural: where its clean samples lie.
    """
    if np.ptp(values) == 0:
        return NO_PARTING
    column = values[:, None]
    two = GaussianMixture(2, n_init=4, init_params="random_from_data", max_iter=1000, random_state=0).fit(column)
    means, variances = two.means_[:, 0], two.covariances_[:, 0, 0]
    return Parting(
        # What three more parameters fit by chance is taken off; a small class would part without.
        gain=float(GaussianMixture(1).fit(column).bic(column) - two.bic(column)) / (2 * len(values)),
        separation=float(np.ptp(means)) / math.sqrt(variances.mean()),
        mixture=two,
        second=int(np.abs(means - natural).argmax()),
    )


class Contrasts:
    """The contrasts of a set's images, a batch at a time.

    Args:
        samples: the set.
        method: the hyperparameters.
        whiten: whitens colours; None measures them on the set.

    Attributes:
        labels: of the set, ``(N,)``.
        whiten: as given, or as measured.
        size: D, how many an image has.
    """

    def __init__(self, samples: Samples, method: PixelSpectralSignatures, whiten: Whiten | None = None) -> None:
        self.inputs, self.labels = samples.inputs, samples.labels
        if whiten is None:
            enough = math.isqrt(len(samples) // (method.samples_per_value * samples.sample_shape[2]))
            whiten = Whiten(samples.sample_shape, max(min(method.largest_side, enough), 8))
            whiten.measure(samples.inputs)
        self.whiten = whiten
        self.size = self.whiten.n_values

    @torch.inference_mode()
    def of(self, rows: NDArray[np.intp]) -> Iterator[Tensor]:
        """Yield the contrasts of these images, ``float32 (n, D)``."""
        for start in range(0, len(rows), AT_ONCE):
            yield contrast(self.whiten(torch.from_numpy(self.inputs[rows[start : start + AT_ONCE]]))).flatten(1)

    def mean(self, rows: NDArray[np.intp]) -> Tensor:
        """Return the mean of these images, ``(D,)``; 0 if there are none."""
        total = torch.zeros(self.size)
        for some in self.of(rows):
            total += some.sum(dim=0)
        return total / max(len(rows), 1)

    def root(self, members: list[NDArray[np.intp]], means: list[Tensor], ridge: float) -> Tensor:
        """Return the Cholesky root of the covariance within classes, ``(D, D)``, given their images and means."""
        products = torch.zeros(self.size, self.size)
        for rows, mean in zip(members, means, strict=True):
            for some in self.of(rows):
                centred = some - mean
                products.addmm_(centred.T, centred)
        products /= len(self.inputs)
        variances = products.diagonal()
        variances += ridge * variances.mean() + 1e-6
        root: Tensor = torch.linalg.cholesky(products)
        return root


class Directions:
    """The direction that a class varies most in, for each fold without what is in that fold.

    In each, the median lies at 0, and the longer tail at the positive end.

    Args:
        white: whitened contrasts of the class, ``(n, D)``.
        fold: ``(n,)``, the fold that each is in.
        n_folds: how many folds there are.
        mean: of the contrasts, ``(D,)``.
        root: Cholesky root of the covariance that whitened them, ``(D, D)``.
    """

    def __init__(self, white: Tensor, fold: NDArray[np.int64], n_folds: int, mean: Tensor, root: Tensor) -> None:
        directions = torch.zeros(white.shape[1], n_folds)
        self.mean, self.medians = mean, torch.zeros(n_folds)
        for part in range(n_folds):
            others = white[torch.from_numpy(fold != part)]
            if len(others):
                direction = principal(nn.functional.normalize(others))
                along = others @ direction
                median = along.median()
                sign = 1 if ((along - median) ** 3).sum() >= 0 else -1
                directions[:, part], self.medians[part] = sign * direction, sign * median
        # The same directions for contrasts that are not white.
        self.weights = torch.linalg.solve_triangular(root.T, directions, upper=True)

    def __call__(self, contrasts: Iterable[Tensor]) -> NDArray[np.float64]:
        """Return where images lie, by each fold's direction, ``float64 (n, n_folds)``, given batches of contrasts."""
        along = [(some - self.mean) @ self.weights - self.medians for some in contrasts]
        return torch.cat(along).double().numpy()


def whitened(contrasts: Tensor, root: Tensor) -> Tensor:
    """Return contrasts ``(n, D)`` of which each direction varies by 1, given the Cholesky root of their covariance."""
    white: Tensor = torch.linalg.solve_triangular(root, contrasts.T, upper=False).T
    return white


def principal(points: Tensor) -> Tensor:
    """Return the direction ``(D,)`` of length 1 in which points ``(n, D)``, about 0, lie furthest apart."""
    direction = torch.ones(points.shape[1])
    for _ in range(TURNS):
        direction = nn.functional.normalize(points.T @ (points @ direction), dim=0)
    return direction
