"""What every attack is: a frozen dataclass that can poison a training set and stamp its trigger on inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from foretaste.errors import ForetasteError, UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Labels, Mask, Samples

if TYPE_CHECKING:
    from foretaste.nets import Net

Inputs = NDArray[Any]
"""``uint8 (N, H, W, C)`` images or ``float32 (N, D)`` features."""
Weights = Mapping[str, NDArray[Any]]
"""What an attack has learnt: arrays by name."""


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A poisoned training set with the ground truth.

    Attributes:
        samples: the set to train on; same ids and order as the set it was made from.
        poison: ``bool (N,)``, samples that plant the backdoor.
        cover: ``bool (N,)``, samples that carry the trigger under their true label; disjoint from ``poison``.
        original_labels: ``int64 (N,)``, labels before the attack; equal to ``samples.labels`` outside ``poison``, and
            everywhere if the attack is clean-label.
    """

    samples: Samples
    poison: Mask
    cover: Mask
    original_labels: Labels

    @classmethod
    def from_stamped(
        cls,
        clean: Samples,
        poison: NDArray[np.intp],
        stamped: Inputs,
        labels: Labels | int,
        cover: NDArray[np.intp] | None = None,
        covered: Inputs | None = None,
    ) -> Poisoned:
        """Put stamped inputs in the place of the chosen samples.

        Args:
            clean: the set before the attack; not modified.
            poison: indices of the poison, ``(P,)``.
            stamped: their new inputs, ``(P, …)``.
            labels: their new labels: one for all, or ``int64 (P,)``.
            cover: indices of the cover samples, ``(Q,)``, which keep their labels.
            covered: their new inputs, ``(Q, …)``.
        """
        inputs, new_labels = np.array(clean.inputs), clean.labels.copy()
        inputs[poison], new_labels[poison] = stamped, labels
        masks = np.zeros((2, len(clean)), dtype=np.bool_)
        masks[0, poison] = True
        if cover is not None:
            assert covered is not None
            inputs[cover] = covered
            masks[1, cover] = True
        kind = "images" if clean.images is not None else "features"
        samples = Samples(new_labels, clean.classes, clean.ids, **{kind: inputs})
        return cls(samples, masks[0], masks[1], clean.labels)


@runtime_checkable
class Attack(Protocol):
    """A backdoor attack: a frozen dataclass whose fields are its hyperparameters.

    Poisoning and stamping are separate because many attacks use another trigger at test time than in training. Both
    draw what is random per sample from ``rng``; what must be the same in training and at test (the picture of a
    trigger) follows from the fields alone.
    """

    summary: ClassVar[str]
    """One line for ``foretaste poison --list``."""

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Poison a training set.

        Raises:
            UsageError: the attack cannot apply to these samples.
        """
        ...

    def stamp(self, inputs: Inputs, rng: Generator) -> Inputs:
        """Return copies of the inputs, each with the test-time trigger."""
        ...

    def victims(self, labels: Labels) -> Mask:
        """Return which inputs, by their true label, the trigger is meant to turn: ``bool (N,)``."""
        ...

    def forced(self, labels: Labels, n_classes: int) -> Labels | None:
        """Return the label that the trigger forces on inputs of these true labels: ``int64 (N,)``.

        None if the attack is untargeted, that is, if any label but the true one will do.
        """
        ...


def succeeded(attack: Attack, answers: Labels, labels: Labels, n_classes: int) -> Mask:
    """Return for which trojaned inputs an attack succeeded, ``bool (N,)``: the answer is the label that it forces.

    Of an untargeted attack, the answer is not the true label.

    Args:
        attack: what the inputs were stamped with.
        answers: the model's, ``int64 (N,)``.
        labels: the true ones, ``int64 (N,)``.
        n_classes: K.
    """
    forced = attack.forced(labels, n_classes)
    success: Mask = answers != labels if forced is None else answers == forced
    return success


@runtime_checkable
class Trainable(Protocol):
    """An attack with a part that must be trained first (a generator, an encoder, a surrogate).

    ``foretaste.attacks.fitted`` gives such an attack its trained part, which it needs to poison, and mostly to stamp.
    The part is no hyperparameter: it is a field ``weights`` with ``init=False``, None until then, that neither
    ``repr`` nor ``==`` looks at.
    """

    unfitted: ClassVar[frozenset[str]]
    """Names of the fields that ``fit`` does not look at: the trained part is the same whatever they are."""

    @property
    def weights(self) -> Weights | None:
        """The trained part; None before it was trained."""
        ...

    def check(self, samples: Samples) -> None:
        """Refuse samples that the attack cannot apply to, before anything is trained.

        Raises:
            UsageError: the attack cannot apply to these samples.
        """
        ...

    def fit(self, samples: Samples, *, seed: int, workdir: Path | None, on_progress: OnProgress) -> Weights:
        """Train on the clean training set and return the trained part.

        Args:
            samples: the clean training set; it passed ``check``.
            seed: where all random numbers come from, at least 0; same seed, same bytes on a CPU.
            workdir: an existing folder for checkpoints, so that a run started again goes on.
            on_progress: called as the work goes on.

        Raises:
            ForetasteError: the training failed.
        """
        ...


@runtime_checkable
class TrojansModel(Protocol):
    """An attack that ends in a backdoored model, and not only in a poisoned set."""

    def trojaned(self) -> Net:
        """Return the backdoored model, on the CPU and in evaluation mode.

        Raises:
            UsageError: it is not trained yet.
            ForetasteError: the file of the model that it was made from cannot be read any more.
        """
        ...


def trained(weights: Weights | None, *names: str) -> Weights:
    """Return an attack's trained part, which is used by these arrays of it.

    Raises:
        UsageError: there is none yet.
        ForetasteError: it lacks one of the arrays.
    """
    if weights is None:
        raise UsageError(
            "this attack has a part that is trained on the training set: poison that first, and name its folder by "
            "--attack-from (in Python: attacks.fitted)"
        )
    for name in names:
        if name not in weights:
            raise ForetasteError(f"the attack's trained part is damaged: it holds no {name}")
    return weights


def choose(candidates: Mask, count: int, rng: Generator, use: str = "to poison") -> NDArray[np.intp]:
    """Choose ``count`` of the candidates at random, for the use that messages name: sorted indices ``(count,)``.

    Raises:
        UsageError: there are fewer candidates, or ``count`` is 0.
    """
    pool = np.flatnonzero(candidates)
    if count < 1:
        raise UsageError(f"the rate leaves no sample {use}; raise it or use a larger set")
    if count > len(pool):
        raise UsageError(f"the attack needs {count} samples {use}, but only {len(pool)} can be used")
    return np.sort(rng.choice(pool, count, replace=False))


def check_range(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse a hyperparameter outside [low, high], or outside (low, high] with ``open_low``.

    Raises:
        UsageError: it is outside, or not a number.
    """
    if not (low < value <= high if open_low else low <= value <= high):
        raise UsageError(f"{name} must be in {'(' if open_low else '['}{low:g}, {high:g}], not {value:g}")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a hyperparameter that is none of the known words.

    Raises:
        UsageError: it is not.
    """
    if value not in known:
        raise UsageError(f"{name} must be {' or '.join(known)}, not {value!r}")


def check_target(target: int, samples: Samples, role: str = "target") -> None:
    """Refuse a class that the samples do not have, under the role that it has in the attack.

    Raises:
        UsageError: ``target`` is outside [0, K).
    """
    if not 0 <= target < len(samples.classes):
        raise UsageError(f"{role} {target} is not one of the {len(samples.classes)} classes")


def check_images(inputs: Inputs) -> None:
    """Refuse inputs that are not images, for attacks whose trigger is drawn in pixels.

    Raises:
        UsageError: the inputs are not ``uint8 (N, H, W, C)``.
    """
    if inputs.dtype != np.uint8 or inputs.ndim != 4:
        raise UsageError("this attack works on images only, and these samples are feature vectors")
