"""The classifier that is trained on the inspected set, poison and all, and what goes on inside it.

Both are computed once and kept under ``workdir/cache``, under names that follow from all they depend on. So every
method that is run with one ``workdir`` shares them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste import __version__
from foretaste.errors import ForetasteError
from foretaste.io.store import Entry
from foretaste.nets import Net
from foretaste.nets.export import load, save
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Samples
from foretaste.training import Compute, TrainingPlan, content, fingerprint, predict, train

Array = NDArray[np.float32]

AT_ONCE = 250
"""Samples in a forward pass, which bounds the memory that it takes."""

LAYOUT = 1
"""Raised when what is kept changes its meaning, so that older files are not used any more."""


@dataclass(frozen=True, kw_only=True)
class OnVictim(TrainingPlan):
    """The hyperparameters that all methods share that look into a classifier trained on the inspected set.

    Attributes:
        net: the classifier's architecture, a key of ``foretaste.nets.NETS``; None is the one for the samples' kind.

    The other fields say how it is trained.

    Raises:
        UsageError: a value is out of range.
    """

    net: str | None = None

    def plan(self) -> TrainingPlan:
        """Return how the classifier is trained."""
        return TrainingPlan(**{field.name: getattr(self, field.name) for field in fields(TrainingPlan)})

    def victim(self, samples: Samples, seed: int, workdir: Path | None, on_progress: OnProgress = silent) -> Victim:
        """Return the classifier trained on the samples, from the cache if it was trained before.

        Raises:
            UsageError: the architecture does not fit the samples.
            ForetasteError: the training failed, or the cache cannot be written.
        """
        key = fingerprint(samples, content(samples), self.net, self.plan(), seed, LAYOUT, __version__)
        if workdir is None:
            trained = train(samples, net=self.net, plan=self.plan(), seed=seed, on_progress=on_progress)
            return Victim(net=trained.net, key=key, cache=None)
        cache = workdir / "cache"
        kept, work = cache / f"victim-{key}.safetensors", cache / f"victim-{key}.work"
        try:
            return Victim(net=load(kept), key=key, cache=cache)
        except ForetasteError:  # not there yet, or damaged
            try:
                work.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ForetasteError(f"cannot write {work}: {error.strerror}") from error
        trained = train(samples, net=self.net, plan=self.plan(), seed=seed, workdir=work, on_progress=on_progress)
        save(trained.net, kept)
        shutil.rmtree(work, ignore_errors=True)
        return Victim(net=trained.net, key=key, cache=cache)


@dataclass(frozen=True, kw_only=True, eq=False)
class Activations:
    """What one pass forward and back through a net left, one row per sample; may be memory-mapped.

    Attributes:
        logits: ``float32 (N, K)``.
        features: ``float32 (N, F)``, what the head sees.
        stages: for each stage of the net, first to last, the mean of its output over all places, ``float32 (N, C)``.
        gradients: for each stage, the mean over all places of the derivative of the own label's logit with respect to
            its output, ``float32 (N, C)``.
        likelihoods: ``float32 (N, L)``: what comes into each of the L batch normalisations, first to last, as the log
            density in nats of its least likely value under that layer's running mean and variance; L may be 0.
    """

    logits: Array
    features: Array
    stages: tuple[Array, ...]
    gradients: tuple[Array, ...]
    likelihoods: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Victim:
    """A classifier trained on the inspected set.

    Attributes:
        net: on the CPU, in evaluation mode.
        key: names what the net depends on.
        cache: the folder for what is measured on it, or None to keep nothing.
    """

    net: Net
    key: str
    cache: Path | None

    def activations(self, samples: Samples, on_progress: OnProgress = silent) -> Activations:
        """Measure what goes on in the net, or read it from the cache.

        Args:
            samples: of the net's classes and shape; may be memory-mapped.
            on_progress: called as the work goes on.

        Raises:
            ForetasteError: the cache cannot be written.
        """
        widths: list[int] = []
        rows = measured(self.net, samples, widths, on_progress)
        if self.cache is None:
            return split(np.concatenate(list(rows)), widths, self.net)
        name = fingerprint(samples, content(samples), self.key)
        entry = Entry(self.cache / f"activations-{name}.raw", self.cache / f"activations-{name}.json")
        gathered = entry.read() or entry.write(rows, lambda: widths)
        return split(gathered.array, gathered.notes, self.net)

    def predict(self, inputs: NDArray[np.generic]) -> Array:
        """Return the logits ``float32 (N, K)`` of raw inputs ``(N, …)``, which may be memory-mapped."""
        return predict(self.net, inputs)

    def outputs(self, inputs: NDArray[np.generic], stage: int) -> Iterator[Tensor]:
        """Yield one stage's output over its places, ``float32 (B, C, P)`` on the CPU, a batch of inputs at a time."""
        with on_device(self.net) as device, recorded(self.net.stages) as seen, torch.inference_mode():
            for start in range(0, len(inputs), AT_ONCE):
                self.net(torch.from_numpy(np.array(inputs[start : start + AT_ONCE])).to(device))
                yield over_places(seen[stage]).cpu()


def measured(net: Net, samples: Samples, widths: list[int], on_progress: OnProgress) -> Iterator[Array]:
    """Yield rows of ``Activations``, its arrays beside each other, a batch of samples at a time.

    Args:
        net: the net.
        samples: what to measure on.
        widths: receives the columns of each array, in order.
        on_progress: called as the work goes on.
    """
    with on_device(net) as device, recorded(net.stages) as seen, least_likely(net.normalisations) as likelihoods:
        for start in range(0, len(samples), AT_ONCE):
            inputs = torch.from_numpy(np.array(samples.inputs[start : start + AT_ONCE])).to(device)
            labels = torch.from_numpy(np.array(samples.labels[start : start + AT_ONCE])).to(device)
            with torch.enable_grad():
                features = net.features(inputs)
                logits = net.head(features)
                own = logits.gather(1, labels[:, None]).sum()
                gradients = torch.autograd.grad(own, seen)
            parts = [logits, features, *map(pooled, seen), *map(pooled, gradients)]
            parts.append(torch.stack(likelihoods, dim=1) if likelihoods else logits[:, :0])
            widths[:] = [part.shape[1] for part in parts]
            yield torch.cat(parts, dim=1).detach().cpu().numpy()
            done = min(start + AT_ONCE, len(samples))
            on_progress(Progress(phase="measure activations", done=done, total=len(samples)))


def split(rows: Array, widths: list[int], net: Net) -> Activations:
    """Take the rows of ``measured`` apart; the arrays are views."""
    logits, features, *others, likelihoods = np.split(rows, np.cumsum(widths)[:-1], axis=1)
    n_stages = len(net.stages)
    return Activations(
        logits=logits,
        features=features,
        stages=tuple(others[:n_stages]),
        gradients=tuple(others[n_stages:]),
        likelihoods=likelihoods,
    )


def over_places(output: Tensor) -> Tensor:
    """Return a stage's output, maps ``(N, C, H, W)``, tokens ``(N, P, C)`` or vectors ``(N, C)``, as ``(N, C, P)``."""
    if output.ndim == 4:
        return output.flatten(2)
    return output.transpose(1, 2) if output.ndim == 3 else output[:, :, None]


def pooled(output: Tensor) -> Tensor:
    """Return the mean over all places of a stage's output or of its gradient, ``(N, C)``."""
    return over_places(output).mean(dim=2)


@contextmanager
def on_device(net: Net) -> Iterator[torch.device]:
    """Put a net where the work is done, in evaluation mode, and back where it was afterwards."""
    device, home, was_training = Compute().device, net.head.weight.device, net.training
    net.to(device).eval()
    try:
        yield device
    finally:
        net.to(home).train(was_training)


@contextmanager
def recorded(modules: tuple[nn.Module, ...]) -> Iterator[list[Tensor]]:
    """Yield a list that holds the modules' outputs of the latest forward pass, in the order of the modules."""
    outputs: list[Tensor] = [torch.empty(0)] * len(modules)

    def keep(place: int, output: Tensor) -> None:
        outputs[place] = output

    with ExitStack() as hooks:
        for place, module in enumerate(modules):
            handle = module.register_forward_hook(lambda _, __, output, place=place: keep(place, output))
            hooks.callback(handle.remove)
        yield outputs


@contextmanager
def least_likely(normalisations: tuple[nn.Module, ...]) -> Iterator[list[Tensor]]:
    """Yield a list of how likely the least likely value is that came into each layer in the latest forward pass.

    Each entry is ``(N,)``, in nats, under the normal distribution with the layer's running mean and variance.
    """
    likelihoods: list[Tensor] = [torch.empty(0)] * len(normalisations)

    def keep(place: int, layer: nn.Module, values: Tensor) -> None:
        mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        spread = (variance + 1e-5).sqrt()  # as torch's batch normalisation has it
        values = over_places(values.detach())
        away = (values - mean[:, None]) / spread[:, None]
        densities = -(away**2) / 2 - spread[:, None].log() - math.log(2 * math.pi) / 2
        likelihoods[place] = densities.flatten(1).amin(dim=1)

    with ExitStack() as hooks:
        for place, layer in enumerate(normalisations):
            handle = layer.register_forward_pre_hook(lambda layer, given, place=place: keep(place, layer, given[0]))
            hooks.callback(handle.remove)
        yield likelihoods
