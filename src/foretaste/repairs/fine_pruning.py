"""Fine-Pruning: cut off the features that clean samples leave silent, then fine-tune."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.inspectors.final_layer import last_linear
from foretaste.progress import OnProgress
from foretaste.repairs.repaired import Mended
from foretaste.repairs.tuning import batch_of, prune_most, tune
from foretaste.samples import Samples
from foretaste.training import check


@dataclass(frozen=True, kw_only=True)
class FinePruning:
    """Prune the last hidden layer in the order of its activity on clean samples (Liu et al. 2018, arXiv:1805.12185).

    A feature that the last linear layer sees, and that clean samples hardly excite, is cut off: its weights become and
    stay 0. That goes on until accuracy on the clean set has fallen by ``most_loss``. Then the model is fine-tuned.

    Attributes:
        most_loss: accuracy that pruning may cost, in [0, 1]; the paper's 0.04.
        epochs: passes over the clean set afterwards, ≥ 0.
        learning_rate: the highest, > 0.
        batch_size: samples per step, ≥ 2.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "fine-pruning"
    summary: ClassVar[str] = "prunes features that clean samples leave silent, then fine-tunes (Liu et al. 2018)"
    needs_training_set: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 20

    most_loss: float = 0.04
    epochs: int = 40
    learning_rate: float = 0.2
    batch_size: int = 32

    def __post_init__(self) -> None:
        check(0 <= self.most_loss <= 1, "most_loss must be in [0, 1]")
        check(self.epochs >= 0, "epochs must be 0 or more")
        check(self.learning_rate > 0, "learning_rate must be above 0")
        check(self.batch_size >= 2, "batch_size must be 2 or more")

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        """Prune, then train on; see ``Repair``."""
        assert clean is not None
        head = last_linear(net, len(clean.classes), self.name)
        order = np.argsort(activity(net, head, clean), kind="stable")
        whole = head.weight.detach().clone()

        def cut(first: int) -> None:
            with torch.no_grad():
                head.weight.copy_(whole)
                head.weight[:, order[:first].copy()] = 0

        count = prune_most(net, clean, cut, len(order) - 1, self.most_loss)
        pruned = torch.from_numpy(order[:count].copy())

        def stay_cut() -> None:
            with torch.no_grad():
                head.weight[:, pruned.to(head.weight.device)] = 0

        tune(
            net,
            clean,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            phase=self.name,
            on_progress=on_progress,
            before_step=stay_cut,
        )
        return Mended(net=net, facts={"features": len(order), "pruned": count})


def activity(net: nn.Module, head: nn.Linear, clean: Samples) -> NDArray[np.float64]:
    """Return the mean absolute value of each of the head's inputs over the clean samples, ``(F,)``."""
    sums: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0].abs().sum(dim=0)))
    try:
        with torch.inference_mode():
            for start in range(0, len(clean), 500):
                net.eval()(batch_of(clean, torch.arange(start, min(start + 500, len(clean))))[0])
    finally:
        hook.remove()
    mean: NDArray[np.float64] = torch.stack(sums).sum(dim=0).double().numpy() / len(clean)
    return mean
