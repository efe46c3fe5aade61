"""What every inspector returns, and what every inspector is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import nn

from foretaste.classifiers.counting import Counted
from foretaste.guards.trigger import Trigger
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples


@dataclass(frozen=True, eq=False)
class Subject:
    """A model under inspection.

    Attributes:
        classifier: the model as it can be asked; it counts the questions.
        weights: the model as a differentiable module, or None where only its answers can be had. It takes raw pixel
            values ``(N, H, W, C)``, uint8 or float32 in [0, 255], and returns logits ``float32 (N, K)``. It is in
            evaluation mode and must be left as it is.
        sample_shape: ``(H, W, C)`` of the images that it takes.
        classes: the K class names.
    """

    classifier: Counted
    weights: nn.Module | None
    sample_shape: tuple[int, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """How one backdoor that the model might have was judged.

    Attributes:
        target: the label that its trigger would force, in [0, K); None if it moved each label to another one
            (all-to-all).
        source: the only class whose images it would turn (one-to-one); None for all of them.
        statistic: the figure that decided; higher is more suspicious, and the scale belongs to the method.
        p_value: how often the most suspicious backdoor of a clean model has a statistic as high, in [0, 1].
        reason: one sentence for people.
        suspect: whether ``p_value`` is within the false-alarm rate.
    """

    target: int | None
    source: int | None = None
    statistic: float
    p_value: float
    reason: str
    suspect: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """A trigger that an inspector made out, and what it does to clean images.

    Attributes:
        kind: "patch", "mask" (a pattern under a soft mask), "blend" or "warp".
        target: the label that it forces, in [0, K); None for all-to-all.
        source: the only class that it was tried on, or None for all.
        flip_rate: share of the clean images that it turns, in [0, 1]; images of the target are not counted.
        n_confirmed: clean images that it was tried on.
        before: a few of them, ``uint8 (n, H, W, C)``.
        after: the same with the trigger.
        patch: the trigger with hard edges, as the registry of ``guard scan`` holds it; None where it is no patch, or
            where it does not work that way.
    """

    kind: str
    target: int | None
    source: int | None = None
    flip_rate: float
    n_confirmed: int
    before: Images
    after: Images
    patch: Trigger | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """What a method found, before anybody says how often it may be wrong.

    Attributes:
        evidence: one entry per backdoor that was looked for, at least one, with the method's own p-values.
        reconstructions: triggers of the most suspicious among them; may be empty.
        notes: sentences that a reader should know.
    """

    evidence: tuple[Evidence, ...]
    reconstructions: tuple[Reconstruction, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The highest statistic."""
        return max(entry.statistic for entry in self.evidence)


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """What an inspector says of a model, and why.

    Attributes:
        backdoored: whether ``p_value`` is within the false-alarm rate.
        p_value: share of the clean models that look as suspicious, in [0, 1].
        score: the highest statistic of the evidence; higher is more suspicious, and the scale belongs to the method.
        evidence: one entry per backdoor that was looked for, lowest p-value first.
        reconstructions: the triggers of the suspects, as far as the method makes any out.
        method: the inspector's registered name.
        seed: what the run's random numbers came from.
        seconds: wall time, without that of the null models.
        queries: questions to the classifier, identical images once; a look into the weights is none.
        false_alarm_rate: share of the clean models that may be called backdoored, in (0, 1).
        null_size: clean models that the p-values were measured on; 0 if they are the method's own.
        notes: sentences that a reader of the diagnosis should know.
    """

    backdoored: bool
    p_value: float
    score: float
    evidence: tuple[Evidence, ...]
    reconstructions: tuple[Reconstruction, ...]
    method: str
    seed: int
    seconds: float
    queries: int
    false_alarm_rate: float
    null_size: int = 0
    notes: tuple[str, ...] = ()

    @property
    def suspect_classes(self) -> tuple[int, ...]:
        """Labels that the suspects' triggers force, rising."""
        return tuple(sorted({entry.target for entry in self.evidence if entry.suspect and entry.target is not None}))

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """The reconstructed triggers that a registry can hold."""
        return tuple(found.patch for found in self.reconstructions if found.patch is not None)


@runtime_checkable
class Inspector(Protocol):
    """A way to judge a model: a frozen dataclass whose fields are its hyperparameters."""

    name: ClassVar[str]
    """The registered name."""
    summary: ClassVar[str]
    """One line for ``foretaste inspect --list``."""
    needs_weights: ClassVar[bool]
    """Whether answers alone are not enough."""
    fewest_clean: ClassVar[int]
    """Clean images that it needs at least; 0 if it needs none."""
    fewest_classes: ClassVar[int]
    """Classes that the model must have for the method to compare them."""

    def look(self, subject: Subject, clean: Samples | None, *, seed: int, on_progress: OnProgress) -> Finding:
        """Look for backdoors.

        Args:
            subject: the model; it has weights and classes enough for the method.
            clean: images that the model mostly gets right, under the model's labels, at least ``fewest_clean``; None
                only if the method needs none.
            seed: where all random numbers come from.
            on_progress: called as the work goes on.

        Raises:
            UsageError: the method cannot work on this model.
            ForetasteError: the model fails.
        """
        ...
