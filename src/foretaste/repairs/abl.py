"""ABL: train anew, isolate what is learnt too easily, and unlearn it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.progress import OnProgress
from foretaste.repairs.repaired import Mended
from foretaste.repairs.tuning import Loss, batch_of, fresh_like, logits_of, tune
from foretaste.samples import Samples
from foretaste.training import check, draws


@dataclass(frozen=True, kw_only=True)
class ABL:
    """Anti-Backdoor Learning (Li et al. 2021, arXiv:2110.11571): needs the training set.

    A fresh model is trained for a few epochs with a loss that is turned round below ``floor``, so that only what is
    learnt at once gets a lower one: the samples of lowest loss are taken for poison. The model then goes on with the
    others, and at the end with the taken ones' loss subtracted.

    Attributes:
        isolate_epochs: passes until the poison is isolated, ≥ 1; the paper's 20 of 100, here as many as a short
            schedule has of them.
        floor: loss in nats below which it is turned round, ≥ 0; the paper's 0.5.
        isolated: share of the training set that is taken for poison, in (0, 1); the paper's 0.01.
        epochs: passes over the others, ≥ 0.
        unlearn_epochs: passes with the poison's loss subtracted, ≥ 0.
        learning_rate: the highest until then, > 0.
        unlearn_rate: the highest from then on, > 0.
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
    unlearn_epochs: int = 2
    learning_rate: float = 0.2
    unlearn_rate: float = 0.01
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

        def unlearning(taken: Samples) -> object:
            def subtracting(plain: Loss) -> Loss:
                def loss_of_step(wrapped: nn.Module, step: int) -> Tensor:
                    rows = torch.randperm(len(taken), generator=draws(seed, 72, step))[: self.batch_size // 2]
                    inputs, labels = batch_of(taken, rows)
                    loss = plain(wrapped, step)
                    # In evaluation mode, lest the statistics of the normalisation become those of the poison.
                    wrapped.eval()
                    device = loss.device
                    lost = nn.functional.cross_entropy(wrapped(inputs.to(device)), labels.to(device))
                    wrapped.train()
                    # What is worse than a guess is unlearned, and there is no lowest value to go for.
                    return loss - lost.clamp_max(float(np.log(len(taken.classes))))

                return loss_of_step

            return subtracting

        self._tune(fresh, train, self.isolate_epochs, self.learning_rate, "isolate", seed, on_progress, turned_round)
        logits = torch.from_numpy(logits_of(fresh, train))
        losses = nn.functional.cross_entropy(logits, torch.from_numpy(train.labels), reduction="none").numpy()
        taken = np.zeros(len(train), dtype=np.bool_)
        taken[np.argsort(losses, kind="stable")[: max(1, round(self.isolated * len(train)))]] = True
        rest = train[~taken]
        self._tune(fresh, rest, self.epochs, self.learning_rate, "train", seed + 1, on_progress, lambda plain: plain)
        subtract = unlearning(train[taken])
        self._tune(fresh, rest, self.unlearn_epochs, self.unlearn_rate, "unlearn", seed + 2, on_progress, subtract)
        return Mended(net=fresh, facts={"isolated": int(taken.sum())})

    def _tune(
        self,
        net: nn.Module,
        samples: Samples,
        epochs: int,
        rate: float,
        phase: str,
        seed: int,
        on_progress: OnProgress,
        loss: object,
    ) -> None:
        tune(
            net,
            samples,
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=rate,
            seed=seed,
            phase=f"{self.name}: {phase}",
            on_progress=on_progress,
            shift=self.shift if phase == "train" else 0,
            loss=loss,  # type: ignore[arg-type]
        )
