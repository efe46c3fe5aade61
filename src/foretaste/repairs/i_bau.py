"""I-BAU: unlearn the worst universal perturbation, with the gradient that minds how it would answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from foretaste.progress import OnProgress, Progress
from foretaste.repairs.repaired import Mended
from foretaste.repairs.tuning import batch_of
from foretaste.samples import Samples
from foretaste.training import Batches, check

Loss = Callable[[Tensor], Tensor]
"""The loss of a batch under a perturbation."""


@dataclass(frozen=True, kw_only=True)
class IBAU:
    """Implicit Backdoor Adversarial Unlearning (Zeng et al. 2022, arXiv:2110.03735).

    A perturbation, the same for all samples of a batch, is trained to turn them; the weights are trained to withstand
    it. How the perturbation would follow the weights is part of the gradient: the implicit function theorem gives it
    as the solution of a linear system, which a fixed-point iteration approaches.

    Attributes:
        epochs: passes over the clean set, ≥ 1.
        batch_size: samples per step, ≥ 2.
        learning_rate: of Adam on the weights, > 0.
        inner_steps: of the perturbation, ≥ 1.
        share: weight of the loss under the perturbation, in (0, 1]; the rest is that of the samples as they are.
        radius: largest root mean square of the perturbation as a share of the full range of a pixel, in (0, 1].
        iterations: of the fixed point, ≥ 0; 0 leaves the implicit part out.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "i-bau"
    summary: ClassVar[str] = "unlearns the worst universal perturbation (Zeng et al. 2022)"
    needs_training_set: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 20

    epochs: int = 5
    batch_size: int = 50
    learning_rate: float = 1e-3
    inner_steps: int = 5
    share: float = 0.2
    radius: float = 0.04
    iterations: int = 3

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "epochs must be 1 or more")
        check(self.batch_size >= 2, "batch_size must be 2 or more")
        check(self.learning_rate > 0, "learning_rate must be above 0")
        check(self.inner_steps >= 1, "inner_steps must be 1 or more")
        check(0 < self.share <= 1, "share must be in (0, 1]")
        check(0 < self.radius <= 1, "radius must be in (0, 1]")
        check(self.iterations >= 0, "iterations must be 0 or more")

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        """Unlearn; see ``Repair``."""
        assert clean is not None
        # In evaluation mode throughout: the statistics of a few clean batches are worse than those of the training.
        net.eval()
        weights = [parameter for parameter in net.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.learning_rate)
        batches = Batches(len(clean), self.batch_size, seed)
        steps = self.epochs * batches.per_epoch
        for step in range(steps):
            inputs, labels = batch_of(clean, batches(step))

            def loss(perturbation: Tensor, inputs: Tensor = inputs, labels: Tensor = labels) -> Tensor:
                return nn.functional.cross_entropy(net(inputs + perturbation), labels)

            perturbation = self.perturbation(loss, inputs)
            for weight, gradient in zip(weights, self.gradient(loss, perturbation, weights), strict=True):
                weight.grad = gradient
            optimizer.step()
            on_progress(Progress(phase=self.name, done=step + 1, total=steps))
        return Mended(net=net)

    def perturbation(self, loss: Loss, inputs: Tensor) -> Tensor:
        """Return the perturbation ``inputs.shape[1:]`` that raises the loss most within the radius."""
        # Feature vectors have no full range: their own spread stands for it.
        scale = 255.0 if inputs.ndim == 4 else float(inputs.std())
        largest = self.radius * scale * math.sqrt(inputs[0].numel())
        perturbation = torch.zeros_like(inputs[0], requires_grad=True)
        for _ in range(self.inner_steps):
            [uphill] = torch.autograd.grad(loss(perturbation), [perturbation])
            with torch.no_grad():
                perturbation += largest / 2 * uphill / uphill.norm().clamp_min(1e-12)
                perturbation *= (largest / perturbation.norm().clamp_min(1e-12)).clamp_max(1.0)
        return perturbation

    def gradient(self, loss: Loss, perturbation: Tensor, weights: list[nn.Parameter]) -> list[Tensor]:
        """Return the gradient of the loss in the weights, the perturbation's answer to them included."""
        plain = torch.autograd.grad(loss(torch.zeros_like(perturbation)), weights)
        uphill, *attacked = torch.autograd.grad(
            loss(perturbation), [perturbation, *weights], create_graph=self.iterations > 0
        )
        direct = [
            (1 - self.share) * without + self.share * under.detach()
            for without, under in zip(plain, attacked, strict=True)
        ]
        if not self.iterations:
            return direct
        # A step of this length along the gradient is the map whose fixed point the perturbation is.
        step = 0.1 * float(perturbation.norm().detach() / uphill.norm().detach().clamp_min(1e-12))
        vector = uphill.detach()
        for _ in range(self.iterations):
            [curved] = torch.autograd.grad(uphill, [perturbation], grad_outputs=vector, retain_graph=True)
            following = vector + step * curved + uphill.detach()
            # Where the loss is not concave the iteration would grow without bound.
            vector = following * (uphill.detach().norm() * 2 / following.norm().clamp_min(1e-12)).clamp_max(1.0)
        mixed = torch.autograd.grad(uphill, weights, grad_outputs=step * vector, allow_unused=True)
        return [
            first if second is None else first + self.share * second
            for first, second in zip(direct, mixed, strict=True)
        ]
