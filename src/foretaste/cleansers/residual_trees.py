"""Residual trees: what a forest of shallow knowledge leaves unexplained of a table's labels, learnt out of fold."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from threadpoolctl import threadpool_limits

from foretaste.cleansers._base.axes import plane
from foretaste.cleansers.confusion_training.evidence import calibrate, find_marks
from foretaste.cleansers.confusion_training.scored import Scored, class_evidence
from foretaste.cleansers.verdict import Round, Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Features, Mask, Samples, listed
from foretaste.training import check

VIEWS = "values", "leanings"
"""What the views go by: values that trees split at, and sums of values far from usual."""
AT_ONCE = 10_000
"""Samples looked at at a time, to keep the copies small."""

Outputs = NDArray[np.float32]
Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ResidualTrees:
    """Find poison in feature vectors: Confusion Training (arXiv:2205.13616) with trees and linear models.

    A random forest whose trees are grown on a few hundred samples each says which label is natural: what holds for a
    large part of a class shows in every such draw, a mark on one sample in a hundred does not. Two views learn what it
    leaves unexplained, and judge samples out of fold: boosted trees, and a linear model of how far each value is from
    usual, which unlearns what clean samples show. A label is condemned if samples carry it more often than the forest
    can explain where a view sees its mark most clearly; see ``confusion_training.evidence``.

    Attributes:
        rounds: rounds at most, ≥ 1; what a round flags, the forest of the next is not grown on.
        folds: parts of the set that are judged by models that never saw them, ≥ 2.
        trees: trees of the forest, ≥ 1.
        drawn: samples that each is grown on, or an eighth of the set if that is less, ≥ 8.
        fewest_in_leaf: samples in a leaf at least, ≥ 1: more than a draw holds of a mark on a hundredth of the set.
        leaf: the same given a clean set, in multiples of what a draw holds of a class on average, in (0, 1): where the
            classes part easily, the mark is all that is left to split at. Natural groups as small are known from the
            clean set; without one they would look like a mark.
        fewest_clean: a class that has fewer samples in the clean set is filled up from the inspected set, ≥ 0: what the
            clean set holds none of is not unlearnt.
        faintest: probabilities below this count as if they were this, in (0, 0.5).
        lambda_: the loss of the linear view is ((λ − 1) · confusion + inspection) / λ; above 1.
        decay: L2 penalty on its weights, > 0.
        farthest: standard deviations from its mean beyond which a value says no more, > 0.
        label_noise: least share of labels that is taken to be random, in (0, 1).
        tolerance: factor by which the odds of the forest may be too low, ≥ 1.
        spread: scores are gains in multiples of this many robust standard deviations of all gains, > 0.
        false_condemnations: chance that a set without a mark has a condemned class, in (0, 1).

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "residual-trees"
    summary: ClassVar[str] = "Confusion Training for feature vectors, with trees and linear models"

    rounds: int = 3
    folds: int = 3
    trees: int = 150
    drawn: int = 300
    fewest_in_leaf: int = 4
    leaf: float = 0.1
    fewest_clean: int = 30
    faintest: float = 0.02
    lambda_: float = 2.0
    decay: float = 0.01
    farthest: float = 4.0
    label_noise: float = 0.01
    tolerance: float = 20.0
    spread: float = 4.0
    false_condemnations: float = 0.01

    def __post_init__(self) -> None:
        check(min(self.rounds, self.trees, self.fewest_in_leaf) >= 1, "rounds, trees and fewest_in_leaf must be ≥ 1")
        check(self.folds >= 2, "folds must be 2 or more")
        check(self.drawn >= 8, "drawn must be 8 or more")
        check(0 < self.leaf < 1, "leaf must be in (0, 1)")
        check(self.fewest_clean >= 0, "fewest_clean must be 0 or more")
        check(0 < self.faintest < 0.5, "faintest must be in (0, 0.5)")
        check(self.lambda_ > 1, "lambda_ must be above 1")
        check(self.decay > 0 and self.farthest > 0, "decay and farthest must be above 0")
        check(0 < self.label_noise < 1, "label_noise must be in (0, 1)")
        check(self.tolerance >= 1, "tolerance must be 1 or more")
        check(self.spread > 0, "spread must be above 0")
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
        """Judge every sample; arguments as for every ``Cleanser``. It takes seconds, so nothing is kept in ``workdir``.

        Raises:
            UsageError: the samples are images.
        """
        start = time.perf_counter()
        if samples.features is None:
            raise UsageError(f"{self.name} works on feature vectors, and these samples are images")
        lacking = {} if clean is None else self.lacking(clean, samples)
        flagged, rounds = np.zeros(len(samples), dtype=np.bool_), list[Round]()
        for number in range(self.rounds):
            began, before = time.perf_counter(), flagged
            scored = self.round(number, samples, clean, lacking, flagged, seed, on_progress)
            odds = np.max(
                [np.full(len(samples), -np.inf), *(scored.log_odds(m, m.seeds) for m in scored.condemned)], axis=0
            )
            flagged = odds > 0
            rounds.append(scored.as_round(f"round {number + 1}", flagged, time.perf_counter() - began))
            if np.array_equal(flagged, before):
                break
        return Verdict(
            scores=scored.final_scores(odds),
            flagged=flagged,
            classes=class_evidence(scored, samples, flagged, VIEWS, self.tolerance),
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - start,
            notes=self.notes(samples, clean, lacking),
            rounds=tuple(rounds),
            embedding=plane(scored.outputs[0]),
        )

    def round(
        self,
        number: int,
        samples: Samples,
        clean: Samples | None,
        lacking: dict[int, int],
        excluded: Mask,
        seed: int,
        on_progress: OnProgress,
    ) -> Scored:
        """Grow the forest without what is excluded, train the views, and score every sample."""
        fold = np.random.default_rng(seed).permutation(len(samples)) % self.folds
        phase = f"round {number + 1}"
        on_progress(Progress(phase=f"{phase}: grow the forest", done=0, total=1))
        if clean is not None and lacking:
            clean = filled(clean, samples, lacking, excluded, seed)
        natural = self.natural(samples, excluded, clean, seed)
        on_progress(Progress(phase=f"{phase}: grow the forest", done=1, total=1))
        base = calibrate(np.log(natural).astype(np.float32), samples.labels, self.label_noise)
        # Without a clean set the set confuses itself, and what is rare in it still tells; but poison whose label is
        # right takes a clean set to find.
        confusing = samples[~excluded] if clean is None else clean
        views = [
            self.boosted(samples, natural, fold, seed, phase, on_progress),
            self.linear(samples, natural, confusing, fold, phase, on_progress),
        ]
        outputs = [np.pad(some, ((0, 0), (0, 1))).astype(np.float32) for some in views]
        marks = find_marks(
            base,
            outputs,
            samples.labels,
            tolerance=self.tolerance,
            false_condemnations=self.false_condemnations,
        )
        return Scored.of(base, outputs, marks, samples.labels, self.spread)

    def lacking(self, clean: Samples, samples: Samples) -> dict[int, int]:
        """Return, by label of each class that the clean set holds too few samples of, how many it lacks."""
        held = np.bincount(clean.labels, minlength=len(samples.classes)).tolist()
        present = np.unique(samples.labels).tolist()
        return {label: self.fewest_clean - held[label] for label in present if held[label] < self.fewest_clean}

    def notes(self, samples: Samples, clean: Samples | None, lacking: dict[int, int]) -> tuple[str, ...]:
        """Return what a reader of the verdict should know."""
        if clean is None:
            return ("no clean set was given: what is natural was learnt from the set itself alone",)
        if not lacking:
            return ()
        few = listed([samples.classes[label] for label in lacking])
        return (
            f"the clean set holds fewer than {self.fewest_clean} samples of {few}; some of the set itself were added",
        )

    def natural(self, samples: Samples, excluded: Mask, clean: Samples | None, seed: int) -> Values:
        """Return how likely each label is for each sample by the forest, ``float64 (N, K)``, and by the clean set."""
        known = samples[~excluded]
        # From a small set fewer are drawn, lest each sample tell of itself in many trees.
        drawn = min(self.drawn, -(-len(known) // 8))
        if clean is None:
            natural = self.forest(known, drawn, self.fewest_in_leaf, samples, seed)
        else:
            leaf = math.ceil(self.leaf * drawn / len(np.unique(known.labels)))
            natural = self.forest(known, drawn, max(leaf, self.fewest_in_leaf), samples, seed)
            # The clean set holds no mark that its trees might learn.
            natural = np.sqrt(natural * self.forest(clean, len(clean), 1, samples, seed))
        shares: Values = natural / natural.sum(axis=1, keepdims=True)
        return shares

    def forest(self, known: Samples, drawn: int, leaf: int, samples: Samples, seed: int) -> Values:
        """Return how likely each label is for each sample, ``float64 (N, K)``, by trees on draws of known ones."""
        forest = RandomForestClassifier(self.trees, max_samples=drawn, min_samples_leaf=leaf, random_state=seed % 2**32)
        forest.fit(known.inputs, known.labels)
        shares = np.zeros((len(samples), len(samples.classes)))
        shares[:, forest.classes_] = forest.predict_proba(samples.inputs)
        return np.maximum(shares, self.faintest)

    def boosted(
        self, samples: Samples, natural: Values, fold: NDArray[np.int64], seed: int, phase: str, on_progress: OnProgress
    ) -> Values:
        """Return what boosted trees add to the logits, ``float64 (N, K)``, out of fold.

        They are fitted to what the forest leaves unexplained: 1 for a sample's own label and 0 for the others, less the
        forest's probabilities.
        """
        n_classes = natural.shape[1]
        unexplained = np.eye(n_classes)[samples.labels] - natural
        found = np.zeros_like(natural)
        # Several threads would add up in any order, and the last bit of a sum can decide a split.
        with threadpool_limits(1):
            for part in range(self.folds):
                on_progress(Progress(phase=f"{phase}: boost trees", done=part, total=self.folds))
                judged = fold == part
                for label in range(n_classes):
                    trees = HistGradientBoostingRegressor(
                        learning_rate=0.2,
                        max_iter=20,
                        max_leaf_nodes=16,
                        min_samples_leaf=8,
                        max_features=0.5,
                        early_stopping=False,
                        random_state=seed % 2**32,
                    )
                    trees.fit(samples.inputs[~judged], unexplained[~judged, label])
                    found[judged, label] = trees.predict(samples.inputs[judged])
        on_progress(Progress(phase=f"{phase}: boost trees", done=self.folds, total=self.folds))
        raised: Values = np.log(np.clip(natural + found, self.faintest, 1) / natural)
        return raised

    def linear(
        self,
        samples: Samples,
        natural: Values,
        confusing: Samples,
        fold: NDArray[np.int64],
        phase: str,
        on_progress: OnProgress,
    ) -> Values:
        """Return what linear confused models add to the logits, ``float64 (N, K)``, out of fold.

        They know a mark of several rare values also where the forest finds the label likely anyway: the confusing
        samples hold back all that clean samples have, and that they do not have.
        """
        scale, known = Scale(samples.inputs, self.farthest), np.log(natural)
        outputs = np.zeros(natural.shape)
        # Several threads would add up in any order.
        with threadpool_limits(1):
            for part in range(self.folds):
                on_progress(Progress(phase=f"{phase}: confuse linear models", done=part, total=self.folds))
                weights = self.confused(samples, known, np.flatnonzero(fold != part), confusing, scale)
                for rows in portions(np.flatnonzero(fold == part)):
                    outputs[rows] = scale(samples.inputs[rows]) @ weights
        on_progress(Progress(phase=f"{phase}: confuse linear models", done=self.folds, total=self.folds))
        return outputs

    def confused(
        self, samples: Samples, known: Values, others: NDArray[np.intp], confusing: Samples, scale: Scale
    ) -> Values:
        """Train a linear confused model on some samples and return its weights, ``(D, K)``.

        Confusing samples count as if they had every label at once, which is what random labels come to on average.

        Args:
            samples: the set, N feature vectors.
            known: logits of the forest, ``(N, K)``.
            others: the samples to train on, ``(n,)``.
            confusing: clean samples.
            scale: measures features.
        """
        n_features, n_classes = samples.inputs.shape[1], known.shape[1]
        labels = np.eye(n_classes)

        def some() -> Iterator[tuple[Features, NDArray[Any], Values, float]]:
            """Yield inputs, logits, how likely each label ought to be, and the weight of a sample's loss."""
            for rows in portions(others):
                yield samples.inputs[rows], known[rows], labels[samples.labels[rows]], 1 / self.lambda_ / len(others)
            for rows in portions(np.arange(len(confusing))):
                every = np.full((len(rows), n_classes), 1 / n_classes)
                yield confusing.inputs[rows], np.zeros_like(every), every, (1 - 1 / self.lambda_) / len(confusing)

        def loss_and_slope(flat: Values) -> tuple[float, Values]:
            weights = flat.reshape(n_features, n_classes)
            loss, slope = self.decay / 2 * float(flat @ flat), self.decay * weights
            for inputs, logits, wanted, weight in some():
                values = scale(inputs)
                raised = logits + values @ weights
                loss += weight * float((logsumexp(raised, axis=1) - (raised * wanted).sum(axis=1)).sum())
                slope = slope + weight * (values.T @ (softmax(raised, axis=1) - wanted))
            return loss, slope.ravel()

        start = np.zeros(n_features * n_classes)
        best = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
        weights: Values = best.x.reshape(n_features, n_classes)
        return weights


class Scale:
    """Measures how far from usual features are.

    Args:
        inputs: feature vectors ``float32 (N, D)``, N ≥ 1.
        farthest: standard deviations beyond which a value says no more.
    """

    def __init__(self, inputs: Features, farthest: float) -> None:
        self.farthest = farthest
        self.mean = inputs.mean(axis=0, dtype=np.float64)
        squares = sum(((inputs[rows] - self.mean) ** 2).sum(axis=0) for rows in portions(np.arange(len(inputs))))
        # A feature that is always the same is never far off, whatever the rounding of its mean.
        self.deviation = np.where(np.ptp(inputs, axis=0) > 0, np.sqrt(squares / len(inputs)), 1)

    def __call__(self, inputs: Features) -> Values:
        """Return by how many standard deviations each feature is off its mean, ``(n, D)``; at most ``farthest``."""
        off: Values = (inputs - self.mean) / self.deviation
        return off.clip(-self.farthest, self.farthest)


def filled(clean: Samples, samples: Samples, lacking: dict[int, int], excluded: Mask, seed: int) -> Samples:
    """Return the clean set with samples of the set itself, none of them excluded, of the classes that it lacks."""
    added = [
        np.random.default_rng([seed, label]).permutation(np.flatnonzero((samples.labels == label) & ~excluded))[:few]
        for label, few in lacking.items()
    ]
    rows = np.concatenate(added)
    # Both sets may name their samples alike.
    return Samples.from_arrays(
        np.concatenate([clean.inputs, samples.inputs[rows]]),
        np.concatenate([clean.labels, samples.labels[rows]]),
        clean.classes,
    )


def portions(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Yield the rows ``AT_ONCE`` at a time."""
    for start in range(0, len(rows), AT_ONCE):
        yield rows[start : start + AT_ONCE]
