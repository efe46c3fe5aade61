"""ABL: train anew, isolate what is learnt too easily, and unlearn it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.progress import OnProgress, Progress
from foretaste.repairs.repaired import Mended
from foretaste.repairs.tuning import Loss, accuracy_of, batch_of, fresh_like, logits_of, tune
from foretaste.samples import Samples
from foretaste.training import Batches, check


@dataclass(frozen=True, kw_only=True)
class ABL:
    """Anti-Backdoor Learning (Li et al. 2021, arXiv:2110.11571): needs the training set.

    A fresh model is trained for a few epochs with a loss that is turned round below ``floor``, so that only what is
    learnt at once gets a lower one: the samples of lowest loss are taken for poison. The model then goes on with the
    others, and at the end unlearns the taken ones.

    Attributes:
        isolate_epochs: passes until the poison is isolated, ≥ 1; the paper's 20 of 100, here as many as a short
            schedule has of them.
        floor: loss in nats below which it is turned round, ≥ 0; the paper's 0.5.
        isolated: share of the training set that is taken for poison, in (0, 1); the paper's 0.01.
        epochs: passes over the others, ≥ 0.
        unlearn_epochs: passes over the isolated samples that unlearn them, ≥ 0; the paper's 20.
        learning_rate: the highest until then, > 0.
        unlearn_rate: of those passes, > 0; the paper's 5e-4.
        most_loss: accuracy on the others that unlearning may cost, in (0, 1]; where it costs more, what was isolated is
            no poison, and nothing is unlearnt.
        batch_size: samples per step, ≥ 2.
        shift: images are moved by up to this many pixels each way while the others are learnt, ≥ 0.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "abl"
    summary: ClassVar[str] = "trains anew, isolates and unlearns the poison; needs the training set (Li et al. 2021)"
    needs_training_set: ClassVar[bool] = True
    fewest_clean: ClassVar[int] = 0

    isolate_epochs: int = 3
    floor: float = 0.5
    isolated: float = 0.01
    epochs: int = 10
    unlearn_epochs: int = 20
    learning_rate: float = 0.2
    unlearn_rate: float = 5e-4
    most_loss: float = 0.1
    batch_size: int = 128
    shift: int = 2

    def __post_init__(self) -> None:
        check(self.isolate_epochs >= 1, "isolate_epochs must be 1 or more")
        check(self.floor >= 0, "floor must be 0 or more")
        check(0 < self.isolated < 1, "isolated must be in (0, 1)")
        check(self.epochs >= 0, "epochs must be 0 or more")
        check(self.unlearn_epochs >= 0, "unlearn_epochs must be 0 or more")
        check(self.learning_rate > 0, "learning_rate must be above 0")
        check(self.unlearn_rate > 0, "unlearn_rate must be above 0")
        check(0 < self.most_loss <= 1, "most_loss must be in (0, 1]")
        check(self.batch_size >= 2, "batch_size must be 2 or more")
        check(self.shift >= 0, "shift must be 0 or more")

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        """Train, isolate, train on, unlearn; see ``Repair``."""
        assert train is not None
        fresh = fresh_like(net, self.name, seed)

        def turned_round(plain: Loss) -> Loss:
            def loss_of_step(wrapped: nn.Module, step: int) -> Tensor:
                loss = plain(wrapped, step)
                return loss * torch.sign(loss.detach() - self.floor)

            return loss_of_step

        fit = partial(
            tune, fresh, batch_size=self.batch_size, learning_rate=self.learning_rate, on_progress=on_progress
        )
        fit(train, epochs=self.isolate_epochs, seed=seed, phase=f"{self.name}: isolate", loss=turned_round)
        logits = torch.from_numpy(logits_of(fresh, train))
        losses = nn.functional.cross_entropy(logits, torch.from_numpy(train.labels), reduction="none").numpy()
        taken = np.zeros(len(train), dtype=np.bool_)
        taken[np.argsort(losses, kind="stable")[: max(1, round(self.isolated * len(train)))]] = True
        rest = train[~taken]
        fit(rest, epochs=self.epochs, seed=seed + 1, phase=f"{self.name}: train", shift=self.shift)
        unlearnt = copy.deepcopy(fresh)
        self.unlearn(unlearnt, train[taken], seed, on_progress)
        facts = {"isolated": int(taken.sum())}
        # What goes with poison is the backdoor; what goes with clean samples is their classes.
        if accuracy_of(unlearnt, rest) < accuracy_of(fresh, rest) - self.most_loss:
            note = "nothing was unlearnt: with the isolated samples the model forgets others, so they are no poison"
            return Mended(net=fresh, facts={**facts, "unlearnt": 0}, notes=(note,))
        return Mended(net=unlearnt, facts={**facts, "unlearnt": facts["isolated"]})

    def unlearn(self, net: nn.Module, taken: Samples, seed: int, on_progress: OnProgress) -> None:
        """Train the model to give these samples any label but theirs.

        In evaluation mode, lest the statistics of the normalisation become those of the poison.
        """
        net.eval()
        weights = list(net.parameters())
        optimizer = torch.optim.SGD(weights, lr=self.unlearn_rate, momentum=0.9)
        batches = Batches(len(taken), self.batch_size, seed)
        steps = self.unlearn_epochs * batches.per_epoch
        for step in range(steps):
            inputs, labels = batch_of(taken, batches(step))
            gradients = torch.autograd.grad(not_own(net(inputs), labels), weights)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            optimizer.step()
            on_progress(Progress(phase=f"{self.name}: unlearn", done=step + 1, total=steps))


def not_own(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of −log(1 − p), where p is the chance of the sample's own label.

    A subtracted cross-entropy has a gradient of about 0 where the model is certain, as it is of poison, and no lowest
    value.
    """
    own = nn.functional.one_hot(labels, logits.shape[1]).bool()
    return (logits.logsumexp(dim=1) - logits.masked_fill(own, -torch.inf).logsumexp(dim=1)).mean()
