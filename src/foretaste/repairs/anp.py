"""ANP: prune the neurons that a small change of their weights turns against clean samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from foretaste.errors import UsageError
from foretaste.progress import OnProgress, Progress
from foretaste.repairs.repaired import Mended
from foretaste.repairs.tuning import batch_of, prune_most
from foretaste.samples import Samples
from foretaste.training import Batches, check, draws


class Neurons:
    """The output channels of one layer, with a mask and an adversary's changes of weight and bias.

    A channel's output is its weight's part plus its bias. Masked and changed it is (mask + change) times the former
    plus (1 + change of the bias) times the latter.
    """

    def __init__(self, layer: nn.BatchNorm2d | nn.BatchNorm1d | nn.Conv2d) -> None:
        self.layer = layer
        n = len(layer.weight)
        self.mask = torch.ones(n, requires_grad=True)
        self.changes = torch.zeros((2, n), requires_grad=True)
        self.hook = layer.register_forward_hook(self.changed)

    def changed(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return the layer's output with mask and changes."""
        shape = (1, -1) + (1,) * (output.ndim - 2)
        bias = torch.zeros_like(self.mask) if self.layer.bias is None else self.layer.bias.detach()
        bias = bias.reshape(shape)
        factor = (self.mask + self.changes[0]).reshape(shape)
        return factor * (output - bias) + (1 + self.changes[1]).reshape(shape) * bias


@dataclass(frozen=True, kw_only=True)
class ANP:
    """Adversarial Neuron Pruning (Wu and Wang 2021, arXiv:2110.14430).

    An adversary changes each neuron's weight and bias by a share of ``strength`` so that clean samples get wrong
    labels; a mask per neuron is trained to withstand it. Neurons are pruned in the order of their masks, as many as the
    accuracy on the clean samples allows; which threshold of the mask parts them depends on network and data. The
    neurons are the channels of batch normalisation, or of the convolutions where a model has none.

    The changes are ± ``strength``, with the signs of the gradient at a random start within ± ``strength`` / 10. In each
    step a start is drawn, the same for all layers of one width; once the signs are known it is dropped.

    Attributes:
        steps: of the mask, ≥ 1; the paper takes 2,000.
        batch_size: samples per step, ≥ 2; the paper's 128.
        learning_rate: of the mask, > 0; the paper's 0.2.
        momentum: of the mask, in [0, 1); the paper's 0.9.
        strength: of the adversary, in (0, 1]; the paper's 0.4.
        trade_off: weight of the loss without the adversary, in [0, 1]; the paper's 0.2.
        most_loss: accuracy on the clean samples that pruning may cost, in [0, 1).

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "anp"
    summary: ClassVar[str] = "prunes neurons that are sensitive to small changes (Wu and Wang 2021)"
    needs_training_set: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 20

    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    strength: float = 0.4
    trade_off: float = 0.2
    most_loss: float = 0.02

    def __post_init__(self) -> None:
        check(self.steps >= 1, "steps must be 1 or more")
        check(self.batch_size >= 2, "batch_size must be 2 or more")
        check(self.learning_rate > 0, "learning_rate must be above 0")
        check(0 <= self.momentum < 1, "momentum must be in [0, 1)")
        check(0 < self.strength <= 1, "strength must be in (0, 1]")
        check(0 <= self.trade_off <= 1, "trade_off must be in [0, 1]")
        check(0 <= self.most_loss < 1, "most_loss must be in [0, 1)")

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        """Train the masks, and prune; see ``Repair``."""
        assert clean is not None
        neurons = [Neurons(layer) for layer in prunable(net.eval())]
        try:
            self.train_masks(net, neurons, clean, seed, on_progress)
        finally:
            for one in neurons:
                one.hook.remove()
        masks = torch.cat([one.mask.detach() for one in neurons])
        order = masks.argsort(stable=True)
        whole = [one.layer.weight.detach().clone() for one in neurons]

        def prune(count: int) -> None:
            cut = torch.zeros(len(masks), dtype=torch.bool)
            cut[order[:count]] = True
            parts = torch.split(cut, [len(one.mask) for one in neurons])
            with torch.no_grad():
                for one, weight, part in zip(neurons, whole, parts, strict=True):
                    one.layer.weight.copy_(weight)
                    one.layer.weight[part] = 0

        # What no adversary can use keeps its mask of 1, and is no candidate.
        pruned = prune_most(net, clean, prune, int((masks < 1).sum()), self.most_loss)
        return Mended(net=net, facts={"neurons": len(masks), "pruned": pruned})

    def train_masks(
        self, net: nn.Module, neurons: list[Neurons], clean: Samples, seed: int, on_progress: OnProgress
    ) -> None:
        """Let the adversary change the neurons, then the masks withstand it, step by step."""
        masks, changes = [one.mask for one in neurons], [one.changes for one in neurons]
        optimizer = torch.optim.SGD(masks, lr=self.learning_rate, momentum=self.momentum)
        batches = Batches(len(clean), self.batch_size, seed)
        for step in range(self.steps):
            images, labels = batch_of(clean, batches(step))

            def loss(images: Tensor = images, labels: Tensor = labels) -> Tensor:
                return nn.functional.cross_entropy(net(images), labels)

            with torch.no_grad():
                for change in changes:
                    change.zero_()
            plain = torch.autograd.grad(self.trade_off * loss(), masks)
            with torch.no_grad():
                # From nowhere, every step of the adversary is as long as it may be: one is enough (as in FGSM).
                for change in changes:
                    change.copy_(torch.empty_like(change).uniform_(-1, 1, generator=draws(seed, 70, step)))
                    change.mul_(self.strength / 10)
            uphill = torch.autograd.grad(loss(), changes)
            with torch.no_grad():
                for change, gradient in zip(changes, uphill, strict=True):
                    change.copy_(self.strength * gradient.sign())
            attacked = torch.autograd.grad((1 - self.trade_off) * loss(), masks)
            for mask, first, second in zip(masks, plain, attacked, strict=True):
                mask.grad = first + second
            optimizer.step()
            with torch.no_grad():
                for mask in masks:
                    mask.clamp_(0, 1)
            on_progress(Progress(phase=self.name, done=step + 1, total=self.steps))
        with torch.no_grad():
            for change in changes:
                change.zero_()


def prunable(net: nn.Module) -> list[nn.BatchNorm2d | nn.BatchNorm1d | nn.Conv2d]:
    """Return the layers whose channels are the neurons.

    Raises:
        UsageError: there are none.
    """
    norms: list[nn.BatchNorm2d | nn.BatchNorm1d | nn.Conv2d] = [
        module for module in net.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
    ]
    layers = norms or [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    if not layers:
        raise UsageError("anp needs a model with convolutions or batch normalisation")
    return layers
