"""Classes that part in two: some of their images carry one and the same pattern, which no other class knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from foretaste.cleansers.confusion_training.features import Contrast, Whiten, seen, shrunk
from foretaste.cleansers.looks import Looks
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Mask, Samples

PHASE = "look for classes that part in two"
LARGEST_SIDE = 32
"""Larger images are shrunk to this side, in pixels: the work grows with the sixth power of it."""
AT_ONCE = 1000
MOST = 5000
"""Samples of a class at most that its direction is taken from."""
RIDGE = 0.01
"""What is added to the variance of every contrast, as a share of their mean."""
TURNS = 30
"""Of the power iteration that finds a direction."""
FEWEST = 10
"""A class parts only if so many of its images that carry the pattern are no near-duplicates and of all looks."""
PARTED = 0.2
"""And if two normal distributions explain its images better than one by this many nats each."""
TWO_HUMPS = 2
"""And if their means are as many standard deviations apart (Ashman's D): less is one hump."""
STARTS = 4
"""Of the search for these."""


def patterned(
    samples: Samples,
    clean: Samples | None,
    colours: Whiten,
    fold: NDArray[np.int64],
    looks: Looks,
    report: OnProgress,
) -> Mask:
    """Return which images carry a pattern that parts their class in two, ``bool (N,)``.

    Contrasts are whitened with the covariance within classes, so that classes on the whole vary in each direction as
    much as in any other. Then a pattern on a good part of one class is the direction in which it varies most (the
    spectral signature of arXiv:1811.00636, in pixels); less so where there are few classes, because the pattern then
    has its share in the covariance. Each part of the set is projected on the direction of the other parts. A class
    parts if its projections are two humps. The pattern is on the one that is further from the clean samples of the
    class; if there are none, on the one that is the longer tail.

    Nothing is asked of the labels but which images belong together, so this is for poison whose labels are right.

    Args:
        samples: the set, N images.
        clean: clean samples, if there are any.
        colours: whitens their colours.
        fold: ``(N,)``, the part of the set that each is in.
        looks: tells whose look has to do with who was chosen.
        report: called as the work goes on.
    """
    contrasts, n_folds = Contrasts(samples, colours), int(fold.max()) + 1
    trusted = samples[:0] if clean is None else clean
    contrasts_of_trusted = Contrasts(trusted, colours)
    members = [np.flatnonzero(samples.labels == label) for label in range(len(samples.classes))]
    means = [contrasts.mean(rows) for rows in members]
    root = contrasts.root(members, means)
    found, nobody = (np.zeros(len(samples), dtype=np.bool_) for _ in range(2))
    for label, (rows, mean) in enumerate(zip(members, means, strict=True)):
        if len(rows) >= 2 * FEWEST:
            step = -(-len(rows) // MOST)
            white = torch.cat([whitened(some - mean, root) for some in contrasts.of(rows[::step])])
            along = Directions(white, fold[rows[::step]], n_folds, mean, root)
            values = along(contrasts.of(rows))[np.arange(len(rows)), fold[rows]]
            examples = np.flatnonzero(trusted.labels == label)
            natural = float(np.median(along(contrasts_of_trusted.of(examples)))) if len(examples) else 0.0
            chosen = rows[further_hump(values, natural)]
            if len(looks.distinct(nobody, nobody, chosen, np.ones(len(chosen), dtype=np.float32))) >= FEWEST:
                found[chosen] = True
        report(Progress(phase=PHASE, done=label + 1, total=len(members)))
    return found


class Contrasts:
    """The contrasts of a set's images.

    Args:
        samples: the set.
        colours: whitens their colours.

    Attributes:
        size: D, how many an image has.
    """

    def __init__(self, samples: Samples, colours: Whiten) -> None:
        self.inputs = samples.inputs
        shape, (height, width) = samples.sample_shape, seen(samples.sample_shape, LARGEST_SIDE)
        self.body = nn.Sequential(colours, shrunk(shape, LARGEST_SIDE), Contrast(), nn.Flatten())
        self.size = height * width * shape[2]

    @torch.inference_mode()
    def of(self, rows: NDArray[np.intp]) -> Iterator[Tensor]:
        """Yield the contrasts of these images a batch at a time, ``float32 (n, D)``."""
        for start in range(0, len(rows), AT_ONCE):
            yield self.body(torch.from_numpy(self.inputs[rows[start : start + AT_ONCE]]))

    def mean(self, rows: NDArray[np.intp]) -> Tensor:
        """Return the mean of these images, ``(D,)``; 0 if there are none."""
        total = torch.zeros(self.size)
        for some in self.of(rows):
            total += some.sum(dim=0)
        return total / max(len(rows), 1)

    def root(self, members: list[NDArray[np.intp]], means: list[Tensor]) -> Tensor:
        """Return the Cholesky root of the covariance within classes, ``(D, D)``, given their images and means."""
        products = torch.zeros(self.size, self.size)
        for rows, mean in zip(members, means, strict=True):
            for some in self.of(rows):
                off = some - mean
                products.addmm_(off.T, off)
        products /= len(self.inputs)
        variances = products.diagonal()
        variances += RIDGE * variances.mean() + 1e-6
        root: Tensor = torch.linalg.cholesky(products)
        return root


class Directions:
    """The direction that a class varies most in, for each part of the set without what is in that part.

    In each, the median lies at 0, and the longer tail at the positive end.

    Args:
        white: whitened contrasts of the class, ``(n, D)``.
        fold: ``(n,)``, the part that each is in.
        n_folds: how many parts there are.
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
        """Return where images lie, by each part's direction, ``float64 (n, n_folds)``, given batches of contrasts."""
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


def further_hump(values: NDArray[np.float64], natural: float) -> Mask:
    """Tell which values belong to the hump that is further from what is natural, ``bool (n,)``.

    None do if there is but one hump.
    """
    nobody = np.zeros(len(values), dtype=np.bool_)
    if np.ptp(values) == 0:
        return nobody
    column = values[:, None]
    two = GaussianMixture(2, n_init=STARTS, init_params="random_from_data", max_iter=1000, random_state=0).fit(column)
    if two.score(column) - GaussianMixture(1).fit(column).score(column) < PARTED:
        return nobody
    means, variances = two.means_[:, 0], two.covariances_[:, 0, 0]
    if np.ptp(means) < TWO_HUMPS * math.sqrt(variances.mean()):
        return nobody
    further = int(np.abs(means - natural).argmax())
    # A wide hump also reaches beyond the other one.
    beyond = (values - means[1 - further]) * (means[further] - means[1 - further]) > 0
    there: Mask = (two.predict(column) == further) & beyond
    return there
