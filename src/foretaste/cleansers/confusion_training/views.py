"""The views of Confusion Training: small confused models that see marks by place, by sharpness, and by shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.cleansers._base.pixel_features import Whiten, contrast, sharpness
from foretaste.cleansers.confusion_training.evidence import Probabilities
from foretaste.cleansers.confusion_training.run import Run, Stream
from foretaste.cleansers.confusion_training.scored import Outputs
from foretaste.progress import OnProgress
from foretaste.samples import Mask, Samples
from foretaste.training import SGD, Batches, DeviceSet, draws, optimise, permutation, side_by_side

VIEWS = "place", "sharpness", "shape"
"""What the views go by, in the order of their outputs."""
LINEAR_SGD = SGD(learning_rate=0.02, weight_decay=1e-3)
"""The optimiser of the linear views."""
NETWORK_SGD = SGD(learning_rate=0.05)
"""The optimiser of the convolutional view."""
CHANNELS = (8, 1), (16, 2), (32, 2), (32, 1)
"""Channels and stride of the convolutional view's layers."""
PREDICTED_AT_ONCE = 500


def view_outputs(run: Run, number: int, base: Probabilities, references: Samples) -> tuple[Outputs, Outputs]:
    """Return what each view says of every sample, ``float32 (V, N, K + 1)``, and of every reference, ``(V, R, K + 1)``.

    Either way by models that were trained without its fold.

    A view learns the set's labels on top of the base model's knowledge, and random labels on clean references: what
    is left to learn is a mark that goes with a label for no natural reason. The last output is taken from the logit of
    the base model's answer, for marks that go with any other label.

    Args:
        run: the inspection.
        number: of the round, from 0.
        base: calibrated probabilities of the base model, ``(N, K)``.
        references: clean references.
    """
    logits = torch.from_numpy(np.log(base)).to(run.compute.device)
    confusing = Confusing(references, run)
    distilled = distil(run, number, base.argmax(axis=1) != run.samples.labels)
    outputs: Outputs = np.empty((len(VIEWS), len(base), base.shape[1] + 1), dtype=np.float32)
    of_references: Outputs = np.empty((len(VIEWS), len(references), base.shape[1] + 1), dtype=np.float32)

    def linear(on_progress: OnProgress) -> None:
        by_place_and_sharpness(run, number, logits, confusing, (outputs[:2], of_references[:2]), on_progress)

    def network(fold: int, on_progress: OnProgress) -> None:
        by_shape(run, number, fold, distilled, logits, confusing, (outputs[2], of_references[2]), on_progress)

    tasks: list[Callable[[OnProgress], None]] = [linear, *(partial(network, fold) for fold in range(run.method.folds))]
    side_by_side(
        tasks,
        compute=run.compute,
        phase=f"round {number + 1}: confuse",
        on_progress=run.on_progress,
    )
    return outputs, of_references


class Confusing:
    """The clean references that the views unlearn what is natural on, in folds of their own.

    Args:
        references: R of them.
        run: the inspection.

    Attributes:
        data: the references on the device.
        fold: ``int64 (R,)``, the fold whose model has not seen them.
    """

    def __init__(self, references: Samples, run: Run) -> None:
        self.size, self.n_folds, self.device = run.method.batch_size // 4, run.method.folds, run.compute.device
        self.data = DeviceSet(references, self.device)
        self.fold: NDArray[np.int64] = permutation(len(references), run.seed, 1).numpy() % self.n_folds

    def batch(self, fold: int | None, n_classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return references ``(n, H, W, C)``, random labels, ``(n,)``, and whose model may learn them, ``bool (n, F)``.

        Args:
            fold: the one whose references are not drawn, or None to draw from all.
            n_classes: K.
            generator: draws both.
        """
        rows = torch.from_numpy(np.flatnonzero(self.fold != (-1 if fold is None else fold)))
        if not len(rows):
            # One reference alone is in no other fold; it confuses its own rather than nothing.
            rows = torch.arange(len(self.data))
        chosen = rows[torch.randint(len(rows), (self.size,), generator=generator)]
        images, labels = self.data.batch(chosen)
        learns = torch.from_numpy(self.fold[chosen.numpy()][:, None] != np.arange(self.n_folds)).to(self.device)
        return images, torch.randint(n_classes, (self.size,), generator=generator).to(labels.device), learns


def confused(base: Tensor, outputs: Tensor, labels: Tensor, drawn: Tensor, lambda_: float) -> tuple[Tensor, Tensor]:
    """Return the losses of a step: of each inspected sample, ``(n, …)``, and of each clean reference, ``(m, …)``.

    Args:
        base: logits of the base model, ``(n, K)``.
        outputs: of the view for the inspected samples and then the references, ``(n + m, …, K + 1)``.
        labels: of the inspected samples, ``(n,)``.
        drawn: random labels of the references, ``(m,)``.
        lambda_: the loss is ((λ − 1) · confusion + inspection) / λ.
    """
    n, between = len(labels), outputs.shape[1:-1]
    base = base.view(n, *(1 for _ in between), -1).expand(n, *between, -1)
    answer = base.argmax(dim=-1, keepdim=True)
    informed = (base + outputs[:n, ..., :-1]).scatter_add(-1, answer, -outputs[:n, ..., -1:])
    losses = []
    for logits, wanted, weight in ((informed, labels, 1 / lambda_), (outputs[n:, ..., :-1], drawn, 1 - 1 / lambda_)):
        likely = nn.functional.log_softmax(logits, dim=-1)
        index = wanted.view(-1, *(1 for _ in between), 1).expand(-1, *between, 1)
        losses.append(-weight * likely.gather(-1, index)[..., 0])
    return losses[0], losses[1]


class LinearViews(nn.Module):
    """Two linear maps to K + 1 outputs for each fold, of contrast and of sharpness; they start at 0.

    The features of a batch are computed once for all of them.

    Args:
        sample_shape: (H, W, C) of the images.
        n_folds: F.
        n_outputs: K + 1.
    """

    def __init__(self, sample_shape: tuple[int, ...], n_folds: int, n_outputs: int) -> None:
        super().__init__()
        self.whiten = Whiten(sample_shape)
        self.shape = n_folds, n_outputs
        sizes = self.whiten.n_values, 4 * self.whiten.n_values
        self.weights = nn.ParameterList(torch.zeros(size, n_folds * n_outputs) for size in sizes)
        self.biases = nn.ParameterList(torch.zeros(n_folds * n_outputs) for _ in sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``float32 (N, 2, F, K + 1)`` of raw images ``uint8 (N, H, W, C)``."""
        with torch.no_grad():
            # In the order that the weights have, neighbours of a row lie side by side.
            whitened = self.whiten(images).contiguous()
            features = contrast(whitened).flatten(1), sharpness(whitened).flatten(1)
        maps = zip(features, self.weights, self.biases, strict=True)
        outputs = [torch.addmm(bias, values, weight) for values, weight, bias in maps]
        return torch.stack(outputs, dim=1).view(len(images), 2, *self.shape)


def by_place_and_sharpness(
    run: Run,
    number: int,
    base: Tensor,
    references: Confusing,
    outputs: tuple[Outputs, Outputs],
    on_progress: OnProgress,
) -> None:
    """Train the linear views, which see marks at their place, and what was warped, blurred or drawn anew.

    Args:
        run: the inspection.
        number: of the round, from 0.
        base: logits of the base model, ``(N, K)``.
        references: clean references.
        outputs: ``(2, N, K + 1)`` of the samples and ``(2, R, K + 1)`` of the references, where theirs go.
        on_progress: called as the work goes on.
    """
    method, compute, n_classes = run.method, run.compute, base.shape[1]
    views = LinearViews(run.samples.sample_shape, method.folds, n_classes + 1).to(compute.device)
    views.whiten.load_state_dict(run.whiten)
    batches = Batches(len(run.samples), method.batch_size, run.seed)
    others = torch.from_numpy(run.fold[:, None] != np.arange(method.folds)).to(compute.device)

    def loss_of_step(net: nn.Module, step: int) -> Tensor:
        chosen = compute.share(batches(step))
        images, labels = run.data.batch(chosen)
        generator = draws(run.seed, Stream.LINEAR, number, step, compute.rank)
        shown, drawn, left = references.batch(None, n_classes, generator)
        chosen = chosen.to(compute.device)
        inspection, confusion = confused(base[chosen], net(torch.cat([images, shown])), labels, drawn, method.lambda_)
        # A fold's model learns from the other folds alone.
        means = [
            (losses * learns[:, None].float()).sum(dim=0) / learns[:, None].float().sum(dim=0).clamp(min=1)
            for losses, learns in ((inspection, others[chosen]), (confusion, left))
        ]
        return (means[0] + means[1]).sum()

    optimise(
        views,
        loss_of_step,
        steps=max(method.view_passes * batches.per_epoch, method.view_steps),
        sgd=LINEAR_SGD,
        compute=compute,
        phase="linear views",
        on_progress=on_progress,
        checkpoint=run.checkpoint(f"linear-{number}"),
        key=run.key_of_round,
    )
    with torch.inference_mode():
        for data, fold, found in ((run.data, run.fold, outputs[0]), (references.data, references.fold, outputs[1])):
            for rows in portions(np.arange(len(data))):
                of_all = views(data.batch(rows)[0])
                own = torch.from_numpy(fold)[rows].to(of_all.device)
                found[:, rows.numpy()] = of_all[torch.arange(len(rows)), :, own].transpose(0, 1).cpu().numpy()


class ShapeView(nn.Module):
    """A small convolutional network to K + 1 outputs: it sees what marks look like, wherever they are.

    Args:
        sample_shape: (H, W, C) of the images.
        n_outputs: K + 1.
        generator: a CPU generator, the only source of randomness.
    """

    def __init__(self, sample_shape: tuple[int, ...], n_outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.whiten = Whiten(sample_shape)
        layers: list[nn.Module] = []
        n_in = 2 * sample_shape[2]
        for n_out, stride in CHANNELS:
            convolution = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False, device="meta").to_empty(device="cpu")
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
            # The memory order that the images come in.
            convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
            layers += [convolution, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
            n_in = n_out
        self.body = nn.Sequential(*layers)
        self.linear = nn.Linear(2 * n_in, n_outputs, device="meta").to_empty(device="cpu")
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``float32 (N, K + 1)`` of raw images ``uint8 (N, H, W, C)``."""
        with torch.no_grad():
            whitened = self.whiten(images)
            seen = torch.cat([whitened, contrast(whitened)], dim=1)
        maps = self.body(seen)
        # The mean shows textures, the maximum a small patch anywhere.
        outputs: Tensor = self.linear(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1))
        return outputs


def by_shape(
    run: Run,
    number: int,
    fold: int,
    distilled: Mask,
    base: Tensor,
    references: Confusing,
    outputs: tuple[Outputs, Outputs],
    on_progress: OnProgress,
) -> None:
    """Train the convolutional view of one fold, which sees marks wherever they are and however they differ.

    Args:
        run: the inspection.
        number: of the round, from 0.
        fold: the one it is not trained on, and judges.
        distilled: ``bool (N,)``, samples to train on.
        base: logits of the base model, ``(N, K)``.
        references: clean references.
        outputs: ``(N, K + 1)`` of the samples and ``(R, K + 1)`` of the references, where those of its fold go.
        on_progress: called as the work goes on.
    """
    method, compute, n_classes = run.method, run.compute, base.shape[1]
    view = ShapeView(run.samples.sample_shape, n_classes + 1, draws(run.seed, Stream.NETWORK_WEIGHTS, number, fold)).to(
        compute.device
    )
    view.whiten.load_state_dict(run.whiten)
    rows = torch.from_numpy(np.flatnonzero(distilled & (run.fold != fold)))
    batches = Batches(len(rows), method.batch_size // 2, run.seed + fold)

    def loss_of_step(net: nn.Module, step: int) -> Tensor:
        chosen = compute.share(rows[batches(step)])
        images, labels = run.data.batch(chosen)
        generator = draws(run.seed, Stream.NETWORK, number, fold, step, compute.rank)
        shown, drawn, _ = references.batch(fold, n_classes, generator)
        known = base[chosen.to(base.device)]
        inspection, confusion = confused(known, net(torch.cat([images, shown])), labels, drawn, method.lambda_)
        return inspection.mean() + confusion.mean()

    optimise(
        view,
        loss_of_step,
        steps=method.network_steps,
        sgd=NETWORK_SGD,
        compute=compute,
        phase=f"shape view {fold + 1}",
        on_progress=on_progress,
        checkpoint=run.checkpoint(f"shape-{number}-{fold}"),
        key=run.key_of_round,
    )
    view.eval()
    with torch.inference_mode():
        for data, folds, found in ((run.data, run.fold, outputs[0]), (references.data, references.fold, outputs[1])):
            for some in portions(np.flatnonzero(folds == fold)):
                found[some.numpy()] = view(data.batch(some)[0]).float().cpu().numpy()


def distil(run: Run, number: int, disagree: Mask) -> Mask:
    """Return the samples that disagree with the base model and as many others, ``bool (N,)``.

    In the distilled set a mark that differs from image to image is no longer rare.
    """
    others = np.flatnonzero(~disagree)
    count = min(max(np.count_nonzero(disagree), run.method.smallest_distilled), len(others))
    mask = disagree.copy()
    mask[others[permutation(len(others), run.seed, Stream.DISTIL + number).numpy()[:count]]] = True
    return mask


def portions(rows: NDArray[np.intp]) -> tuple[Tensor, ...]:
    """Return the rows a batch at a time."""
    return torch.split(torch.from_numpy(rows), PREDICTED_AT_ONCE)
