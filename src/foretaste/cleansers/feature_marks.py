"""Confusion Training's models for feature vectors: a forest knows what is natural, trees look for marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from threadpoolctl import threadpool_limits

from foretaste.cleansers.judgement import Heard, named
from foretaste.cleansers.linear_marks import leaned
from foretaste.cleansers.verdict import ClassEvidence
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Labels, Mask, Samples

if TYPE_CHECKING:
    from foretaste.cleansers.confusion_training import ConfusionTraining

TREES = 150
"""Trees of the forest that says what is natural."""
DRAWN = 300
"""Samples that each of them is grown on: so few that a trigger is on a handful of them at most."""
LEAF = 4
"""Samples in a leaf at least: of a mark on one sample in a hundred such a draw holds three, too few for a leaf."""
FEWEST_CLEAN = 30
"""Samples of each class that is to be judged, in the clean set: what it holds none of is not taken out of the class."""
FAINTEST = 0.02
"""What is less likely than this counts as if it were as likely."""

Outputs = NDArray[np.float32]


class FeatureRun:
    """One inspection of feature vectors: what its rounds have in common.

    A round takes seconds, so nothing of it is kept on disk.
    """

    def __init__(
        self,
        method: ConfusionTraining,
        samples: Samples,
        clean: Samples | None,
        seed: int,
        on_progress: OnProgress,
    ) -> None:
        self.samples, self.clean, self.seed, self.on_progress = samples, clean, seed, on_progress
        self.lambda_ = method.lambda_
        self.fold = np.random.default_rng(seed).permutation(len(samples)) % method.folds
        self.lacking = {} if clean is None else lacking(clean, samples)
        # Patterns are looked for in images alone.
        self.patterned = np.zeros(len(samples), dtype=np.bool_)

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the verdict should know."""
        if self.clean is None:
            return ("no clean set was given: what is natural was learnt from the set itself alone",)
        if not self.lacking:
            return ()
        few = ", ".join(self.samples.classes[label] for label in self.lacking)
        return (f"the clean set holds fewer than {FEWEST_CLEAN} samples of {few}; some of the set itself were added",)

    def round(self, number: int, suspect: Mask, flagged: Mask) -> Heard:
        """Return what the trees and the linear model say of every sample, out of fold."""
        self.on_progress(Progress(phase=f"round {number + 1}: learn what is natural", done=0, total=1))
        clean = None if self.clean is None else self.completed(self.clean, suspect)
        nature = natural(self.samples, suspect, clean, self.seed)
        self.on_progress(Progress(phase=f"round {number + 1}: learn what is natural", done=1, total=1))
        phase, labels = f"round {number + 1}: confuse trees", self.samples.labels
        found = marked(self.samples, nature, self.fold, self.seed, phase, self.on_progress)
        # Without a clean set the set confuses itself, and what is rare in it still tells; but poison whose label is
        # right takes a clean set to find.
        confusing = self.samples[~suspect] if clean is None else clean
        phase = f"round {number + 1}: confuse linear models"
        leaning = leaned(self.samples, np.log(nature), confusing, self.fold, self.lambda_, phase, self.on_progress)
        gains = gain(nature, found, labels), named(leaning, labels)
        nobody = np.zeros(len(found), dtype=np.bool_)
        return Heard(
            gains=gains,
            doubted=nobody,
            telling=~nobody,
            patterned=self.patterned,
            distinct=each,
            residual=found,
        )

    def completed(self, clean: Samples, suspect: Mask) -> Samples:
        """Return the clean set with samples of the set itself, none of them suspect, of the classes that it lacks."""
        if not self.lacking:
            return clean
        labels = self.samples.labels
        added = [
            np.random.default_rng([self.seed, label]).permutation(np.flatnonzero((labels == label) & ~suspect))[:few]
            for label, few in self.lacking.items()
        ]
        rows = np.concatenate(added)
        # Both sets may name their samples alike.
        return Samples.from_arrays(
            np.concatenate([clean.inputs, self.samples.inputs[rows]]),
            np.concatenate([clean.labels, labels[rows]]),
            clean.classes,
        )

    def left_out(self, scores: Outputs, flagged: Mask, doubted: Mask, evidence: tuple[ClassEvidence, ...]) -> Mask:
        """Tell whom the next round's forests are not grown on: the flagged.

        If high scores of other classes were left out, too, the forests would forget nature sooner than a mark.
        """
        return flagged

    def told(
        self, scores: Outputs, flagged: Mask, doubted: Mask, evidence: tuple[ClassEvidence, ...]
    ) -> tuple[Outputs, Mask]:
        """Return the final score of every sample, and who is flagged: what the last round said."""
        highest: Outputs = scores.max(axis=0)
        return highest, flagged


def each(rows: NDArray[np.intp], scores: Outputs) -> Outputs:
    """Return the scores that count as evidence: all of them, for feature vectors have no near-duplicates."""
    return scores


def lacking(clean: Samples, samples: Samples) -> dict[int, int]:
    """Return, by the label of each class that a clean set holds too few samples of, how many it lacks."""
    held = np.bincount(clean.labels, minlength=len(samples.classes)).tolist()
    present = np.unique(samples.labels).tolist()
    return {label: FEWEST_CLEAN - held[label] for label in present if held[label] < FEWEST_CLEAN}


def natural(samples: Samples, suspect: Mask, clean: Samples | None, seed: int) -> Outputs:
    """Return how likely each label is for each sample by nature, ``float32 (N, K)``.

    The forest's trees are grown on a few hundred samples each. What holds for a large part of a class shows in every
    such draw; a mark of a hundredth of the set does not, whatever it consists of.

    Args:
        samples: the set, N feature vectors.
        suspect: ``bool (N,)``, samples that nothing is to be learnt from.
        clean: trusted samples, or None.
        seed: where the trees' random numbers come from.
    """
    known = samples[~suspect]
    # From a small set fewer are drawn, lest each sample tell of itself in many trees.
    nature = likely(known, min(DRAWN, -(-len(known) // 8)), samples, seed)
    if clean is not None:
        nature = np.sqrt(nature * likely(clean, len(clean), samples, seed))
    shares: Outputs = (nature / nature.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def likely(known: Samples, drawn: int, samples: Samples, seed: int) -> NDArray[np.float64]:
    """Return how likely each label is for each sample, ``float64 (N, K)``, by trees grown on draws of known ones."""
    forest = RandomForestClassifier(TREES, max_samples=drawn, min_samples_leaf=LEAF, random_state=seed)
    forest.fit(known.inputs, known.labels)
    shares = np.zeros((len(samples), len(samples.classes)))
    shares[:, forest.classes_] = forest.predict_proba(samples.inputs)
    return np.maximum(shares, FAINTEST)


def marked(
    samples: Samples, nature: Outputs, fold: NDArray[np.int64], seed: int, phase: str, on_progress: OnProgress
) -> Outputs:
    """Return by how much nature underestimates each label for each sample, in [-1, 1], ``float32 (N, K)``.

    Boosted trees are fitted to what nature leaves over: 1 for a sample's own label and 0 for the others, less nature's
    probabilities. Each sample is judged by trees that were grown without its fold.
    """
    n_classes = nature.shape[1]
    left = np.eye(n_classes, dtype=np.float32)[samples.labels] - nature
    found = np.zeros_like(nature)
    n_folds = int(fold.max()) + 1
    # Several threads would add up in any order, and the last bit of a sum can decide a split.
    with threadpool_limits(1):
        for part in range(n_folds):
            on_progress(Progress(phase=phase, done=part, total=n_folds))
            judged = fold == part
            for label in range(n_classes):
                trees = HistGradientBoostingRegressor(
                    learning_rate=0.2,
                    max_iter=20,
                    max_leaf_nodes=16,
                    min_samples_leaf=8,
                    max_features=0.5,
                    early_stopping=False,
                    random_state=seed,
                )
                trees.fit(samples.inputs[~judged], left[~judged, label])
                found[judged, label] = trees.predict(samples.inputs[judged])
    on_progress(Progress(phase=phase, done=n_folds, total=n_folds))
    return found


def gain(nature: Outputs, found: Outputs, labels: Labels) -> Outputs:
    """Return by what power of e each sample's own label is likelier than nature says, ``float32 (N,)``."""
    rows = np.arange(len(labels))
    before, change = nature[rows, labels], found[rows, labels]
    gained: Outputs = np.log(np.clip(before + change, FAINTEST, 1) / np.clip(before, FAINTEST, 1))
    return gained
