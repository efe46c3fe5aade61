"""NAD: a fine-tuned copy of the model teaches it where to look."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from foretaste.errors import UsageError
from foretaste.progress import OnProgress
from foretaste.repairs.repaired import Mended
from foretaste.repairs.tuning import Loss, batch_of, tune
from foretaste.samples import Samples
from foretaste.training import Batches, check


@dataclass(frozen=True, kw_only=True)
class NAD:
    """Neural Attention Distillation (Li et al. 2021, arXiv:2101.05930).

    The teacher is a copy that was fine-tuned on the clean set. The model is then trained on it as well, with an added
    loss: its attention maps (mean of squared channels, of unit length) are to be the teacher's, at the last layer of
    each resolution.

    Attributes:
        teacher_epochs: passes over the clean set for the teacher, ≥ 1.
        epochs: passes for the model, ≥ 1.
        learning_rate: the highest of both, > 0.
        batch_size: samples per step, ≥ 2.
        weight: of the attention loss, ≥ 0, summed over the layers. The paper's 500 to 5000 are for mean squares over
            the places; this loss is their sum.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "nad"
    summary: ClassVar[str] = "distils attention from a fine-tuned copy (Li et al. 2021)"
    needs_training_set: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 20

    teacher_epochs: int = 20
    epochs: int = 40
    learning_rate: float = 0.2
    batch_size: int = 32
    weight: float = 5.0

    def __post_init__(self) -> None:
        check(self.teacher_epochs >= 1, "teacher_epochs must be 1 or more")
        check(self.epochs >= 1, "epochs must be 1 or more")
        check(self.learning_rate > 0, "learning_rate must be above 0")
        check(self.batch_size >= 2, "batch_size must be 2 or more")
        check(self.weight >= 0, "weight must be 0 or more")

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        """Tune the teacher, then the model; see ``Repair``."""
        assert clean is not None
        if clean.images is None:
            raise UsageError("nad compares where a model looks in an image, and these samples are feature vectors")
        names = attended(net.eval(), clean)
        teacher = copy.deepcopy(net)
        tune(
            teacher,
            clean,
            epochs=self.teacher_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            phase=f"{self.name}: teacher",
            on_progress=on_progress,
        )
        batches = Batches(len(clean), self.batch_size, seed)
        with outputs_of(teacher, names) as taught, outputs_of(net, names) as own:

            def distilling(plain: Loss) -> Loss:
                def loss_of_step(wrapped: nn.Module, step: int) -> Tensor:
                    own.clear()
                    taught.clear()
                    loss = plain(wrapped, step)
                    inputs, _ = batch_of(clean, batches(step))
                    with torch.no_grad():
                        teacher.to(loss.device)(inputs.to(loss.device))
                    for name in names:
                        loss = loss + self.weight * (attention(own[name]) - attention(taught[name])).norm(dim=1).mean()
                    return loss

                return loss_of_step

            tune(
                net,
                clean,
                epochs=self.epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                seed=seed,
                phase=self.name,
                on_progress=on_progress,
                loss=distilling,
            )
        return Mended(net=net, facts={"layers": len(names)})


def attention(output: Tensor) -> Tensor:
    """Return where a layer's output ``(N, C, H, W)`` is strong, ``(N, H · W)`` of unit length."""
    return nn.functional.normalize(output.pow(2).mean(dim=1).flatten(1), dim=1)


def attended(net: nn.Module, clean: Samples) -> list[str]:
    """Return the names of the modules that are the last to give an output of their resolution.

    What no weight changes, as the standardised image, is the same in teacher and model, and passed over.

    Raises:
        UsageError: no module of the model gives out maps.
    """
    last: dict[torch.Size, str] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: note(last, output, name))
        for name, module in net.named_modules()
    ]
    try:
        with torch.enable_grad():
            net(batch_of(clean, torch.arange(1))[0])
    finally:
        for hook in hooks:
            hook.remove()
    if not last:
        raise UsageError("nad needs a model with convolutions")
    return list(last.values())


def note(last: dict[torch.Size, str], output: object, name: str) -> None:
    """Note which module gave an output of this resolution last; only what depends on a weight has a gradient."""
    if isinstance(output, Tensor) and output.requires_grad and output.ndim == 4 and name and min(output.shape[2:]) > 1:
        last[output.shape[2:]] = name


@contextmanager
def outputs_of(net: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Give a dictionary that holds what the named modules gave out in the latest forward pass."""
    found: dict[str, Tensor] = {}
    modules = dict(net.named_modules())

    def keep(name: str, output: Tensor) -> None:
        found[name] = output

    hooks = [modules[name].register_forward_hook(lambda _, __, output, name=name: keep(name, output)) for name in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
