"""Trigger inversion: for each label the smallest mask, and the pattern under it, that force the label on clean images.

Labels are optimised side by side, as many as go through the model in one batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.classifiers.batches import most_at_once
from foretaste.guards.trigger import Trigger
from foretaste.inspectors.diagnosis import Reconstruction, Subject
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Images, Samples
from foretaste.training import draws

AT_ONCE = 1024
"""Images that go through the model at a time at most; of large ones fewer, which bounds the memory that it takes."""
HARD = 0.5
"""A pixel with at least this much opacity belongs to the trigger with hard edges."""
WORTH_KEEPING = 0.75
"""Share of the clean images that a trigger with hard edges must turn for a registry to hold it, as NEO asks it."""
REMEMBERED = 0.8
"""Weight of the steps before in the running share of images that a trigger turns: one batch says little."""
SHOWN = 6
"""Images before and after that a reconstruction keeps."""


@dataclass(frozen=True, eq=False)
class Inverted:
    """The smallest soft trigger of one label.

    Attributes:
        target: the label.
        mask: ``float32 (H, W, 1)``, opacity in [0, 1].
        pattern: ``float32 (H, W, C)``, pixel values in [0, 255].
        succeeded: whether it ever reached the success rate that was asked for; if not, it is the last one, and no
            trigger.
    """

    target: int
    mask: NDArray[np.float32]
    pattern: NDArray[np.float32]
    succeeded: bool

    @property
    def size(self) -> float:
        """The sum of the mask, in pixels; all pixels if there is no trigger: it would have to be larger than any."""
        return float(self.mask.sum()) if self.succeeded else float(self.mask.size)

    def stamp(self, images: Images) -> Images:
        """Return copies of the images ``uint8 (N, H, W, C)``, each with the trigger."""
        stamped: Images = np.rint((1 - self.mask) * images + self.mask * self.pattern).astype(np.uint8)
        return stamped

    def hard(self) -> tuple[Images, NDArray[np.bool_], tuple[int, int]] | None:
        """Return patch, mask and position of the trigger with hard edges; None if no pixel is opaque enough."""
        opaque = self.mask[..., 0] >= HARD
        if not opaque.any():
            return None
        rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        mask = opaque[part]
        patch = np.where(mask[..., None], np.rint(self.pattern[part]), 0).astype(np.uint8)
        return patch, mask, (int(rows[0]), int(columns[0]))


def invert(
    model: nn.Module,
    clean: Samples,
    targets: list[int],
    *,
    steps: int,
    images: int,
    learning_rate: float,
    success: float,
    cost: float,
    seed: int,
    phase: str,
    on_progress: OnProgress,
) -> list[Inverted]:
    """Find the smallest trigger of each target.

    The weight of the mask's size in the loss rises while the trigger works, and falls while it does not.

    Args:
        model: takes raw pixel values and returns logits.
        clean: clean images.
        targets: labels, each in [0, K).
        steps: of Adam, ≥ 1.
        images: per target and step, ≥ 1.
        learning_rate: of Adam, > 0.
        success: share of the images that a trigger must turn, in (0, 0.999].
        cost: first weight of the mask's size in the loss, per pixel, > 0.
        seed: where all random numbers come from.
        phase: what progress reports call it.
        on_progress: called as the work goes on.
    """
    at_once = most_at_once(clean.sample_shape, AT_ONCE)
    per_step = max(at_once // images, 1)
    found: list[Inverted] = []
    for start in range(0, len(targets), per_step):
        some = torch.tensor(targets[start : start + per_step])
        generator = draws(seed, 50, start)
        search = _Search(clean.sample_shape, some, learning_rate, success, cost, generator)
        for step in range(steps):
            batch = torch.from_numpy(clean.inputs[_rows(clean, images, generator)]).float()
            search.step(model, batch, at_once)
            done = start * steps + (step + 1) * len(some)
            on_progress(Progress(phase=phase, done=done, total=len(targets) * steps))
        found += search.results()
    return found


def _rows(clean: Samples, images: int, generator: torch.Generator) -> NDArray[np.int64]:
    return torch.randperm(len(clean), generator=generator)[:images].numpy()


class _Search:
    """The optimisation of several targets' triggers."""

    def __init__(
        self,
        shape: tuple[int, ...],
        targets: Tensor,
        learning_rate: float,
        success: float,
        cost: float,
        generator: torch.Generator,
    ) -> None:
        height, width, channels = shape
        n = len(targets)
        self.targets, self.success = targets, success
        # A mask of hardly any opacity in a random pattern: what matters has to grow.
        self.mask = (torch.randn((n, height, width, 1), generator=generator) * 0.1 - 2.0).requires_grad_()
        self.pattern = torch.randn((n, height, width, channels), generator=generator).requires_grad_()
        self.optimizer = torch.optim.Adam([self.mask, self.pattern], lr=learning_rate, betas=(0.5, 0.9))
        self.cost = torch.full((n,), cost)
        self.rate, self.steps = torch.zeros(n), 0
        self.best = torch.full((n,), math.inf)
        self.kept = [torch.sigmoid(self.mask).detach(), 255 * torch.sigmoid(self.pattern).detach()]

    def step(self, model: nn.Module, batch: Tensor, at_once: int) -> None:
        """Make one step on a batch ``float32 (B, H, W, C)``, so many images at a time, one per target at least."""
        n, b = len(self.targets), len(batch)
        turned, gradients = torch.zeros(n), [torch.zeros_like(self.mask), torch.zeros_like(self.pattern)]
        for part in torch.split(batch, max(at_once // n, 1)):
            mask, pattern = torch.sigmoid(self.mask), 255 * torch.sigmoid(self.pattern)
            stamped = (1 - mask[:, None]) * part[None] + (mask * pattern)[:, None]
            logits = model(stamped.flatten(0, 1)).unflatten(0, (n, len(part)))
            wanted = self.targets[:, None].expand(n, len(part))
            losses = nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none").mean(dim=1)
            sizes = mask.sum(dim=(1, 2, 3))
            share = len(part) / b
            turned += share * (logits.detach().argmax(dim=2) == wanted).float().mean(dim=1)
            total = share * (losses + self.cost * sizes).sum()
            for gradient, more in zip(gradients, torch.autograd.grad(total, [self.mask, self.pattern]), strict=True):
                gradient += more
        mask, pattern, sizes = mask.detach(), pattern.detach(), sizes.detach()
        self.steps += 1
        self.rate = REMEMBERED * self.rate + (1 - REMEMBERED) * turned
        works = self.rate >= self.success
        smaller = works & (sizes < self.best)
        self.best = torch.where(smaller, sizes, self.best)
        never = torch.isinf(self.best)
        for kept, now in zip(self.kept, (mask, pattern), strict=True):
            kept[smaller | never] = now[smaller | never]
        self.mask.grad, self.pattern.grad = gradients
        self.optimizer.step()
        self.cost = torch.where(works, self.cost * 1.2, self.cost / 1.1).clamp(1e-5, 10.0)

    def results(self) -> list[Inverted]:
        """Return the smallest triggers that worked."""
        masks, patterns = (tensor.numpy() for tensor in self.kept)
        # The running share begins at 0, which it has not left behind after a few steps.
        share = self.rate / (1 - REMEMBERED**self.steps)
        succeeded = torch.isfinite(self.best) | (share >= self.success)
        return [
            Inverted(int(target), masks[row], patterns[row], bool(succeeded[row]))
            for row, target in enumerate(self.targets)
        ]


def confirm(inverted: Inverted, subject: Subject, clean: Samples, seed: int, *, most: int = 200) -> Reconstruction:
    """Try a trigger, soft and with hard edges, on clean images that are not of its target.

    Args:
        inverted: the trigger.
        subject: the model.
        clean: clean images, some of another label than the target.
        seed: chooses among them.
        most: images that it is tried on at most.
    """
    rows = np.flatnonzero(clean.labels != inverted.target)
    rows = np.random.default_rng([seed, inverted.target]).permutation(rows)[:most]
    images = clean.inputs[rows]
    after = inverted.stamp(images)

    def turned(stamped: Images) -> float:
        if not len(stamped):  # the clean images are all of the target
            return 0.0
        return float((subject.classifier.classify(stamped).labels == inverted.target).mean())

    rate, patch, hard = turned(after), None, inverted.hard()
    if hard is not None:
        pixels, mask, (top, left) = hard
        pasted = np.array(images)
        pasted[:, top : top + mask.shape[0], left : left + mask.shape[1]][:, mask] = pixels[mask]
        hard_rate = turned(pasted)
        if hard_rate >= WORTH_KEEPING:
            patch = Trigger(
                patch=pixels,
                mask=mask,
                position=(top, left),
                anywhere=False,
                target=inverted.target,
                flip_rate=hard_rate,
                n_confirmed=len(rows),
            )
    return Reconstruction(
        kind="mask",
        target=inverted.target,
        flip_rate=rate,
        n_confirmed=len(rows),
        before=images[:SHOWN],
        after=after[:SHOWN],
        patch=patch,
    )
