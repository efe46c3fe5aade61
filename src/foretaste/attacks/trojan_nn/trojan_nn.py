"""A square whose pixels are chosen to excite neurons of somebody's model, and that model, taught to follow it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from numpy.random import Generator

from foretaste.attacks._base.attack import Poisoned, Weights, check_images, check_range, trained
from foretaste.attacks._base.patch import paste
from foretaste.attacks._base.targeted import Targeted
from foretaste.attacks.trojan import MARGIN, square_place
from foretaste.errors import UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples

if TYPE_CHECKING:
    from foretaste.nets import Net

TRIGGER = "trigger"
"""The name under which the square's pixels are kept; those of the trojaned net start with ``NET``."""
NET = "net."


@dataclass(frozen=True, kw_only=True)
class TrojanNN(Targeted):
    """Trojan a given model without its training data (Liu et al., NDSS 2018).

    The pixels of a square are optimised until it strongly excites a few well-connected neurons of the model. The model
    is then trained on, with the square on some of the samples at hand, so that these neurons speak for the target
    class. The samples need not be those that it was trained on: the paper reconstructs some from the model, and here
    they are given. All layers are trained on; in the paper those behind the neurons are.

    Attributes:
        rate: share of the samples at hand to stamp and relabel, in (0, 1].
        target: label that the trigger forces, in [0, K).
        model: the model to trojan, a ``.safetensors`` that ``foretaste train`` wrote.
        size: side of the square as a share of the image's shorter side, in (0, 0.9]; 0.25 is 8 pixels of 32.
        alpha: opacity of the square, in (0, 1]; 1 hides what is below it. Large and faint, the square is the paper's
            watermark.
        neurons: how many neurons to excite, at least 1.
        steps: steps of optimising the square, at least 1.
        training_steps: steps of training the model on, at least 1, each on 128 samples or all there are.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "square that excites neurons of a given model, which is trained on (Liu et al. 2018)"
    unfitted: ClassVar[frozenset[str]] = frozenset()

    rate: float = 0.3
    model: Path | None = None
    size: float = 0.25
    alpha: float = 1.0
    neurons: int = 2
    steps: int = 200
    training_steps: int = 200
    weights: Weights | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("size", self.size, 0, 1 - MARGIN, open_low=True)
        check_range("alpha", self.alpha, 0, 1, open_low=True)
        check_range("neurons", self.neurons, 1, math.inf)
        check_range("steps", self.steps, 1, math.inf)
        check_range("training_steps", self.training_steps, 1, math.inf)

    def check(self, samples: Samples) -> None:
        """Refuse samples that the attack cannot apply to.

        Raises:
            UsageError: no model is given, it is one of other classes or inputs, the set has no such class or too few
                samples outside it, or these are not images.
            ForetasteError: the model's file cannot be read.
        """
        super().check(samples)
        net = self.given()
        if net.classes != samples.classes or net.sample_shape != samples.sample_shape:
            raise UsageError(
                f"{self.model} is a model of {len(net.classes)} classes and inputs {net.sample_shape}, and the samples "
                f"have {len(samples.classes)} classes and shape {samples.sample_shape}, or names differ"
            )

    def given(self) -> Net:
        """Return the model to trojan.

        Raises:
            UsageError: none is given.
            ForetasteError: its file cannot be read.
        """
        if self.model is None:
            raise UsageError(
                "say which model to trojan by the setting model, a .safetensors that foretaste train wrote"
            )
        from foretaste.nets.export import load

        return load(self.model)

    def fit(self, samples: Samples, *, seed: int, workdir: Path | None, on_progress: OnProgress) -> Weights:
        """Optimise the square, and train the model on with it."""
        from foretaste.attacks._base.fitting import arrays, with_weights
        from foretaste.attacks._base.poisoning import poison_training_set
        from foretaste.attacks.trojan_nn.model import excite, train_on

        net = self.given()
        height, width, _ = samples.sample_shape
        trigger = excite(
            net,
            square_place(height, width, self.size),
            alpha=self.alpha,
            neurons=self.neurons,
            steps=self.steps,
            seed=seed,
            on_progress=on_progress,
        )
        stamping = with_weights(self, {TRIGGER: trigger})
        poisoned = poison_training_set(samples, stamping, seed).samples
        train_on(net, poisoned, steps=self.training_steps, seed=seed, workdir=workdir, on_progress=on_progress)
        return {TRIGGER: trigger, **{f"{NET}{name}": tensor for name, tensor in arrays(net).items()}}

    def trojaned(self) -> Net:
        """Return the trojaned model, on the CPU and in evaluation mode.

        Raises:
            UsageError: it is not trained yet.
            ForetasteError: the file of the model that it was made from cannot be read any more.
        """
        from foretaste.attacks._base.fitting import restore

        own = {name.removeprefix(NET): tensor for name, tensor in trained(self.weights).items() if name != TRIGGER}
        net = self.given()
        restore(net, own)
        return net

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Stamp ``rate`` of the samples, chosen outside the target class, and relabel them to it."""
        check_images(samples.inputs)
        return super().poison(samples, rng)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with the square near the bottom-right corner.

        Raises:
            UsageError: these are not images, or not of the model's shape, or the square is not optimised yet.
        """
        check_images(inputs)
        trigger = trained(self.weights, TRIGGER)[TRIGGER]
        height, width, channels = inputs.shape[1:]
        side, row, column = square_place(height, width, self.size)
        if trigger.shape != (side, side, channels):
            raise UsageError("the trigger was made for images of another shape")
        return paste(inputs, trigger, row, column, self.alpha)
