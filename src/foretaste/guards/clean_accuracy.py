"""Whether the classifier knows the clean images at all: what a guard says of its answers rests on that."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from foretaste.classifiers.classifier import Classifier
from foretaste.classifiers.preprocessing import Preprocesses, conventions
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images, Labels, Samples


@dataclass(frozen=True, kw_only=True)
class CleanAccuracy:
    """How many clean images a classifier gives their own label, and what would explain the rest.

    Attributes:
        n: clean images that it was asked about.
        n_right: those that got their own label.
        chance: share of the clean images that have the most frequent label, in (0, 1]: what one answer for all gets.
        n_classes: classes that the classifier scores; None if it gives labels alone.
        renumbered: share that would be right if the classes were numbered otherwise, at best, in [0, 1].
        conventions: share that is right under each of the usual kinds of preprocessing, by name; empty if none was
            tried.
        fitting: that of them which is right most often, if it does.
        warn_below: skill below which the accuracy is in doubt.
        refuse_below: skill below which the answers mean nothing.
        label_counts: how often each label was answered.
    """

    n: int
    n_right: int
    chance: float
    n_classes: int | None
    renumbered: float
    conventions: Mapping[str, float]
    fitting: str | None
    warn_below: float
    refuse_below: float
    label_counts: Mapping[int, int] = field(repr=False)

    @property
    def accuracy(self) -> float:
        """The share that is right, in [0, 1]."""
        return self.n_right / self.n

    @property
    def skill(self) -> float:
        """The accuracy on a scale on which one answer for all images has 0, and no mistake 1."""
        return skill(self.accuracy, self.chance)

    @property
    def near_chance(self) -> bool:
        """Whether the answers mean nothing."""
        return self.skill < self.refuse_below

    @property
    def doubt(self) -> str | None:
        """What is wrong and likely reasons, in a sentence; None if nothing is."""
        if self.skill >= self.warn_below:
            return None
        reasons = []
        if self.fitting is not None:
            options = conventions(3)[self.fitting].options
            reasons.append(
                f"with {options} ({self.fitting}) it is right on {self.conventions[self.fitting]:.0%}, "
                "so that is most likely how it takes the pixels"
            )
        if skill(self.renumbered, self.chance) >= self.warn_below:
            reasons.append(
                f"with its classes in another order it would be right on {self.renumbered:.0%}, so name them in the "
                "model's order with --class-names"
            )
        advice = "; ".join(reasons) or (
            "likely reasons are pixels of another scale or colour order (--scale, --mean, --std, --channels), classes "
            "in another order (--class-names), another layout of the images, or a clean set of another kind"
        )
        return (
            f"the model gives only {self.n_right:,} of {self.n:,} clean images their own label ({self.accuracy:.0%}; "
            f"one answer for all would get {self.chance:.0%}): {advice}"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """The doubt as a note for readers, if there is one."""
        return () if self.doubt is None else (self.doubt,)

    def described(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds of it."""
        return {name: value for name, value in asdict(self).items() if name != "label_counts"} | {
            "accuracy": self.accuracy
        }


@dataclass(frozen=True, kw_only=True)
class CleanCheck:
    """Compare the classifier's answers to the clean images with their labels.

    Accuracy is judged by the skill ``(accuracy − chance) / (1 − chance)``, which does not depend on the number of
    classes.

    Attributes:
        warn_below: skill below which the usual kinds of preprocessing are tried and a warning is due, in [0, 1]. The
            least that published classifiers of natural images have is about 0.6 (top-1 on ImageNet).
        refuse_below: skill below which nothing can be said of the classifier's answers, in [0, warn_below]. A model
            whose pixels have a wrong scale gets between 0 and 0.2.
        most: clean images that are asked about at most, ≥ 1.
        tried: clean images with which preprocessing is tried at most, ≥ 1; each costs a question for each kind.

    Raises:
        UsageError: a field is out of range.
    """

    warn_below: float = 0.6
    refuse_below: float = 0.2
    most: int = 1000
    tried: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.refuse_below <= self.warn_below <= 1:
            raise UsageError("refuse_below and warn_below must rise, in [0, 1]")
        if min(self.most, self.tried) < 1:
            raise UsageError("most and tried must be 1 or more")

    def measure(self, classifier: Classifier, clean: Samples, seed: int) -> CleanAccuracy:
        """Ask about clean images, and try the usual kinds of preprocessing if too few answers are right.

        Args:
            classifier: what to ask.
            clean: trusted images under the classifier's own label numbers.
            seed: which of many images are asked about.

        Raises:
            UsageError: the samples are no images, or of another shape than the classifier takes.
            ForetasteError: the classifier fails.
        """
        rows = np.random.default_rng(seed).permutation(len(clean))
        chosen = clean[np.sort(rows[: self.most])]
        answers = classifier.classify(np.asarray(chosen.inputs))
        chance = float(np.bincount(chosen.labels).max() / len(chosen))
        n_right = int((answers.labels == chosen.labels).sum())
        tried: dict[str, float] = {}
        if skill(n_right / len(chosen), chance) < self.warn_below:
            few = clean[np.sort(rows[: self.tried])]
            tried = accuracies(classifier, np.asarray(few.inputs), few.labels)
        best = max(tried, key=lambda name: tried[name], default=None)
        fits = best is not None and skill(tried[best], chance) >= self.warn_below
        labels, counts = np.unique(answers.labels, return_counts=True)
        return CleanAccuracy(
            n=len(chosen),
            n_right=n_right,
            chance=chance,
            n_classes=None if answers.scores is None else answers.scores.shape[1],
            renumbered=renumbered(answers.labels, chosen.labels),
            conventions=tried,
            fitting=best if fits else None,
            warn_below=self.warn_below,
            refuse_below=self.refuse_below,
            label_counts=dict(zip(labels.tolist(), counts.tolist(), strict=True)),
        )

    def require(self, classifier: Classifier, clean: Samples, seed: int) -> CleanAccuracy:
        """Measure, and refuse a classifier that hardly knows the clean images; arguments as for ``measure``.

        Raises:
            UsageError: as for ``measure``, or as ``check_accuracy`` does.
            ForetasteError: the classifier fails.
        """
        accuracy = self.measure(classifier, clean, seed)
        check_accuracy(accuracy)
        return accuracy


def skill(accuracy: float, chance: float) -> float:
    """Return ``(accuracy − chance) / (1 − chance)``; 1 for no mistake, whatever the chance."""
    return 1.0 if accuracy == 1 else (accuracy - chance) / max(1 - chance, 1e-9)


def accuracies(model: Classifier, images: Images, labels: Labels) -> dict[str, float]:
    """Return the share of images that the model is right on under each kind of preprocessing that it takes."""
    if not isinstance(model, Preprocesses):
        return {}
    found: dict[str, float] = {}
    for name, way in conventions(images.shape[3]).items():
        with suppress(ForetasteError):  # it does not apply to this model, or the model fails on such numbers
            found[name] = float((model.preprocessed(way).classify(images).labels == labels).mean())
    return found


def renumbered(answers: Labels, labels: Labels) -> float:
    """Return the share of answers that are right under that one-to-one renumbering which makes most of them right."""
    known, positions = np.unique(answers, return_inverse=True)
    pairs = np.zeros((len(known), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(pairs, (positions, labels), 1)
    return float(pairs[linear_sum_assignment(pairs, maximize=True)].sum() / len(labels))


def check_accuracy(accuracy: CleanAccuracy) -> None:
    """Refuse a classifier whose answers to clean images are hardly better than one answer for all.

    Raises:
        UsageError: it is near chance; the sentence names likely reasons.
    """
    if accuracy.near_chance:
        raise UsageError(accuracy.doubt or "the classifier is near chance on the clean images")
