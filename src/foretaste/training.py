"""The one training loop: device, precision, several processes, seeds, progress, checkpoints.

``train`` is the reference trainer. Methods that need batches or losses of their own call ``optimise`` with them.

Everything random in a step follows from the seed and the step's number (see ``draws``), never from what was drawn
before. So a checkpoint is the weights, the optimiser's state and a number, and a run that was killed ends in the same
weights, bit for bit.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.atomic import atomic_bytes
from foretaste.nets import Net, build
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Samples

T = TypeVar("T")

CHECKPOINT_SECONDS = 20.0
"""Time between two checkpoints of a running optimisation."""
REPORT_SECONDS = 0.1
"""Time between two progress reports."""
MARGIN = 0.1
"""Share of the side that each piece of a patchwork has at least."""
HASHED_AT_ONCE = 1000
"""Samples that are read at a time where all inputs are hashed."""


# What a step does.


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum.

    Attributes:
        learning_rate: the highest of the schedule, > 0.
        momentum: in [0, 1).
        weight_decay: L2 penalty on all weights, ≥ 0.
        schedule: "linear" rises from 0 to ``learning_rate`` in the first fifth of the steps and falls to 0 at the last;
            "constant" stays.
        nesterov: whether the momentum is Nesterov's.

    Raises:
        UsageError: a value is out of range.
    """

    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["linear", "constant"] = "linear"
    nesterov: bool = True

    def __post_init__(self) -> None:
        check(self.learning_rate > 0, "learning_rate must be above 0")
        check(0 <= self.momentum < 1, "momentum must be in [0, 1)")
        check(self.weight_decay >= 0, "weight_decay must be 0 or more")
        check(self.schedule in ("linear", "constant"), "schedule must be linear or constant")

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of one step in [0, steps)."""
        if self.schedule == "constant":
            return self.learning_rate
        peak = max(steps / 5, 1.0)
        return self.learning_rate * min((step + 1) / peak, (steps - step) / max(steps - peak, 1.0), 1.0)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's optimiser of these parameters."""
        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov and self.momentum > 0,
        )


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), for what is no classifier; the learning rate falls to 0 linearly.

    Attributes:
        learning_rate: of the first step, > 0.

    Raises:
        UsageError: a value is out of range.
    """

    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        check(self.learning_rate > 0, "learning_rate must be above 0")

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of one step in [0, steps)."""
        return self.learning_rate * (steps - step) / steps

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's optimiser of these parameters."""
        return torch.optim.Adam(parameters, lr=self.learning_rate)


def check(holds: bool, complaint: str) -> None:
    """Refuse a value that is not a number or out of range.

    Raises:
        UsageError: it does not hold.
    """
    if not holds:
        raise UsageError(complaint)


def draws(seed: int, *place: int) -> torch.Generator:
    """Return the CPU generator for one place in a run, such as (purpose, step): the same place, the same numbers."""
    # Its length goes before the place, because trailing zeros would change nothing.
    word = np.random.SeedSequence([seed, len(place), *place]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word))


class Compute:
    """Where the work is done: a GPU if there is one, with several processes under ``accelerate launch``.

    On a GPU, forward passes run in bfloat16; on a CPU in float32, where bfloat16 is slower. Either way what is done
    twice gives the same bits, as far as torch can do it.

    Attributes:
        device: this process's device.
        rank: this process's number, from 0.
        n_processes: how many there are.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            # Said of adaptive pooling even where its windows do not overlap, and then it is deterministic.
            warnings.filterwarnings("ignore", "adaptive_avg_pool2d_backward_cuda")
        self.accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.n_processes: int = self.accelerator.num_processes

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and reports."""
        return self.rank == 0

    def share(self, indices: Tensor) -> Tensor:
        """Return this process's slice of a batch's indices ``(B,)``."""
        return indices[self.rank :: self.n_processes]

    def wait(self) -> None:
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()


class DeviceSet:
    """The samples, where the device gets at them quickly.

    On a GPU that has room the whole set is one tensor there. Otherwise each batch is gathered from the array, which may
    be memory-mapped and larger than memory.

    Attributes:
        labels: ``int64 (N,)``, on the device.
    """

    def __init__(self, samples: Samples, device: torch.device) -> None:
        self.device = device
        self.labels = torch.from_numpy(np.array(samples.labels)).to(device)
        self._inputs = samples.inputs
        self._resident: Tensor | None = None
        if device.type == "cuda" and samples.inputs.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            self._resident = torch.empty(
                samples.inputs.shape, dtype=torch.float32 if samples.images is None else torch.uint8, device=device
            )
            for start in range(0, len(samples), 10_000):
                part = torch.from_numpy(np.array(samples.inputs[start : start + 10_000]))
                self._resident[start : start + 10_000] = part

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw inputs ``(B, …)`` and labels ``int64 (B,)`` at CPU indices ``int64 (B,)``, on the device."""
        here = indices.to(self.device)
        if self._resident is not None:
            return self._resident[here], self.labels[here]
        inputs = torch.from_numpy(self._inputs[indices.numpy()])
        return inputs.to(self.device), self.labels[here]


@dataclass(frozen=True)
class Batches:
    """The order of a training run: every epoch goes once through a fresh permutation, in batches of one size.

    The samples that do not fill a last batch are left out of that epoch.

    Attributes:
        n: samples, at least 1.
        size: the wished batch size; a smaller set is one batch.
        seed: where the permutations come from.
    """

    n: int
    size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return max(self.n // self.size, 1)

    def __call__(self, step: int) -> Tensor:
        """Return the indices of one step's batch: CPU ``int64 (min(size, n),)``."""
        epoch, place = divmod(step, self.per_epoch)
        return permutation(self.n, self.seed, epoch)[place * self.size : (place + 1) * self.size]


@lru_cache(maxsize=8)
def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """Return the order of one epoch, CPU ``int64 (n,)``, not to be written to."""
    return torch.randperm(n, generator=draws(seed, 1, epoch))


def augment(images: Tensor, generator: torch.Generator, *, shift: int, flip: bool) -> Tensor:
    """Shift every image by up to ``shift`` pixels each way, edges repeated, and mirror half of them if ``flip``.

    Args:
        images: ``uint8 (N, H, W, C)``, any device.
        generator: a CPU generator.
        shift: pixels, ≥ 0.
        flip: whether left and right may be swapped.
    """
    n, height, width, _ = images.shape
    offsets = torch.randint(-shift, shift + 1, (2, n, 1), generator=generator)
    rows = (torch.arange(height) + offsets[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + offsets[1]).clamp(0, width - 1)
    if flip:
        mirrored = torch.rand((n, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    places = (rows[:, :, None] * width + columns[:, None, :]).reshape(n, -1, 1).to(images.device)
    flat = images.reshape(n, height * width, -1)
    return flat.gather(1, places.expand(-1, -1, flat.shape[2])).reshape(images.shape)


def patchwork(images: Tensor, generator: torch.Generator) -> tuple[Tensor, list[Tensor], list[float]]:
    """Make every image of a batch from pieces of four, each at its place (after RICAP, arXiv:1811.09030).

    Args:
        images: ``uint8 (N, H, W, C)``, any device.
        generator: a CPU generator.

    Returns:
        The images; for each of the four pieces which images they are of, ``int64 (N,)``; and their shares of the area,
        which add up to 1.
    """
    height, width = images.shape[1:3]
    row, column = (MARGIN + (1 - 2 * MARGIN) * torch.rand(2, generator=generator)).tolist()
    row, column = round(row * height), round(column * width)
    made, sources, shares = torch.empty_like(images), [], []
    for rows in (slice(0, row), slice(row, height)):
        for columns in (slice(0, column), slice(column, width)):
            source = torch.randperm(len(images), generator=generator).to(images.device)
            made[:, rows, columns] = images[source, rows, columns]
            sources.append(source)
            shares.append((rows.stop - rows.start) * (columns.stop - columns.start) / (height * width))
    return made, sources, shares


def noisy(images: Tensor, generator: torch.Generator, deviation: float) -> Tensor:
    """Add normal noise to every value of every image.

    Args:
        images: ``uint8 (N, H, W, C)``, any device.
        generator: a CPU generator.
        deviation: standard deviation of the noise, in values of 0 to 255, ≥ 0.
    """
    noise = torch.randn(images.shape, generator=generator).mul_(deviation).to(images.device)
    return noise.add_(images).round_().clamp_(0, 255).byte()


# The loop.


def optimise(
    net: nn.Module,
    loss_of_step: Callable[[nn.Module, int], Tensor],
    *,
    steps: int,
    sgd: SGD | Adam,
    compute: Compute,
    phase: str,
    on_progress: OnProgress = silent,
    checkpoint: Path | None = None,
    key: str = "",
) -> None:
    """Train a net in place; it stays on the device, in training mode.

    Args:
        net: the net.
        loss_of_step: is given the net to call (it may be wrapped) and the step's number in [0, steps), and returns the
            mean loss of this process's share of the batch. It must depend on nothing else that changes, and draw
            random numbers from ``draws`` only.
        steps: how many, ≥ 0.
        sgd: the optimiser.
        compute: where to work.
        phase: what progress reports call it.
        on_progress: called at most about ten times a second, in the leading process only.
        checkpoint: a file to keep the state in; if it is there already and has the same key, the run goes on from it,
            or is over at once if it had ended.
        key: what the result depends on, as ``fingerprint`` gives it; a checkpoint with another key is not used.

    Raises:
        ForetasteError: the loss became infinite or NaN, or the checkpoint cannot be written.
    """
    wrapped: nn.Module = compute.accelerator.prepare_model(net)
    net.train()
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = sgd.optimizer(parameters)
    key = f"{key} {sgd} {steps}"
    first = 0 if checkpoint is None else read_checkpoint(checkpoint, key, net, optimizer)
    reported = saved = time.monotonic()
    report = on_progress if compute.leads else silent
    report(Progress(phase=phase, done=first, total=max(steps, 1)))
    try:
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = sgd.rate(step, steps)
            loss = loss_of_step(wrapped, step)
            optimizer.zero_grad(set_to_none=True)
            compute.accelerator.backward(loss)
            optimizer.step()
            now, done = time.monotonic(), step + 1
            if now - reported >= REPORT_SECONDS or done == steps:
                reported, value = now, float(loss.detach())
                if not math.isfinite(value):
                    raise ForetasteError(
                        f"the training failed in step {done} of {steps} ({phase}): the loss is not a finite number; "
                        "a lower learning rate may help"
                    )
                due = checkpoint is not None and (now - saved >= CHECKPOINT_SECONDS or done == steps)
                if due and checkpoint is not None and compute.leads:
                    write_checkpoint(checkpoint, key, net, optimizer, done)
                    saved = time.monotonic()
                report(Progress(phase=phase, done=done, total=steps, note=f"loss {value:.3g}"))
    finally:
        compute.accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)


def side_by_side(
    tasks: Sequence[Callable[[OnProgress], T]], *, compute: Compute, phase: str, on_progress: OnProgress = silent
) -> list[T]:
    """Run independent small trainings at the same time, each on one thread, and return their results in order.

    Small networks gain little by a second thread, and on a busy machine threads that wait for each other lose much. As
    every task has one thread, the results do not depend on how many tasks run at a time. On a GPU, or with several
    processes, which must take the same steps in the same order, the tasks run one after the other.

    Args:
        tasks: each is given what it reports its progress to.
        compute: where the work is done.
        phase: what progress reports call the whole.
        on_progress: called with the progress of all tasks together.

    Raises:
        Exception: what the first task that failed raised; the others are stopped.
    """
    shares, lock, stopped = [0.0] * len(tasks), threading.Lock(), threading.Event()

    def work(number: int) -> T:
        def report(progress: Progress) -> None:
            if stopped.is_set():
                raise ForetasteError("stopped")
            with lock:
                shares[number] = max(shares[number], progress.done / progress.total)
                done = int(1000 * sum(shares) / len(tasks))
                on_progress(Progress(phase=phase, done=done, total=1000, note=progress.note))

        torch.set_num_threads(1)
        result = tasks[number](report)
        report(Progress(phase=phase, done=1, total=1))
        return result

    threads = torch.get_num_threads()
    at_once = threads if compute.device.type == "cpu" and compute.n_processes == 1 else 1
    try:
        with ThreadPoolExecutor(min(at_once, len(tasks)) or 1) as pool:
            futures = [pool.submit(work, number) for number in range(len(tasks))]
            try:
                return [future.result() for future in futures]
            except BaseException:
                stopped.set()
                for future in futures:
                    future.cancel()
                raise
    finally:
        torch.set_num_threads(threads)


def write_checkpoint(path: Path, key: str, net: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write weights, the optimiser's state and the step, whole or not at all.

    Raises:
        ForetasteError: it cannot be written.
    """
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"state.{number}.{name}": value for name, value in state.items() if value is not None}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_bytes(path, serialised(tensors, {"key": key, "step": str(step)}))


def read_checkpoint(path: Path, key: str, net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put a checkpoint's state into net and optimiser, and return its step; 0 if there is none with this key."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return 0
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (FileNotFoundError, SafetensorError):
        return 0
    net.load_state_dict({name[4:]: tensor for name, tensor in tensors.items() if name.startswith("net.")})
    state = optimizer.state_dict()
    state["state"] = {}
    for name, tensor in tensors.items():
        if name.startswith("state."):
            _, number, buffer = name.split(".")
            state["state"].setdefault(int(number), {})[buffer] = tensor
    optimizer.load_state_dict(state)
    return int(metadata["step"])


def fingerprint(*parts: Samples | object) -> str:
    """Return a short name for what a run depends on: samples, settings, seeds, bytes.

    Of large sets the labels, the ids and a thousand evenly spaced inputs count, so that a set larger than memory need
    not be read twice.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Samples):
            digest.update(repr((part.inputs.shape, part.classes)).encode())
            digest.update(part.labels.tobytes())
            digest.update(part.ids.tobytes())
            digest.update(part.inputs[:: max(len(part) // 1000, 1)].tobytes())
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:32]


def content(samples: Samples) -> str:
    """Return a digest of all inputs, read a portion at a time: what is kept for good must not be for other samples."""
    digest = hashlib.sha256()
    for start in range(0, len(samples), HASHED_AT_ONCE):
        digest.update(samples.inputs[start : start + HASHED_AT_ONCE].tobytes())
    return digest.hexdigest()


# The reference trainer.


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How the reference trainer trains.

    Attributes:
        epochs: passes over the training set, ≥ 1.
        batch_size: samples per step over all processes, ≥ 2.
        learning_rate: the highest, > 0; it rises in the first fifth of the steps and falls to 0 at the last.
        momentum: in [0, 1).
        weight_decay: ≥ 0.
        shift: images are moved by up to this many pixels each way, ≥ 0.
        flip: whether images may be mirrored; off, because a mirrored sign can mean something else.
        width: the net's width, ≥ 1; None is the architecture's own.

    Raises:
        UsageError: a value is out of range.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    shift: int = 2
    flip: bool = False
    width: int | None = None

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "epochs must be 1 or more")
        check(self.batch_size >= 2, "batch_size must be 2 or more")
        check(self.shift >= 0, "shift must be 0 or more")
        check(self.width is None or self.width >= 1, "width must be 1 or more")
        self.sgd()

    def sgd(self) -> SGD:
        """Return the optimiser."""
        return SGD(learning_rate=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained net and how it did.

    Attributes:
        net: on the CPU, in evaluation mode.
        metrics: JSON-ready: ``net, width, seed, epochs, n_samples, n_classes, seconds, train_accuracy`` in [0, 1], and
            ``test_accuracy`` and ``n_test`` if there was a test set.
        leads: whether this process is the one of several that should write files.
    """

    net: Net
    metrics: dict[str, Any]
    leads: bool = True


def train(
    samples: Samples,
    *,
    test: Samples | None = None,
    net: str | None = None,
    plan: TrainingPlan | None = None,
    seed: int = 0,
    workdir: Path | None = None,
    on_progress: OnProgress = silent,
) -> Trained:
    """Train a classifier with cross-entropy on the samples' labels.

    Args:
        samples: the training set, at least two classes of it present.
        test: samples of the same classes and shape to measure accuracy on.
        net: a key of ``foretaste.nets.NETS``; None is the one for the samples' kind.
        plan: how; the default plan suits small images on a CPU.
        seed: where all random numbers come from, ≥ 0; same seed, same machine kind: the same weights, bit for bit.
        workdir: an existing folder for a checkpoint, so that a run started again with the same arguments goes on.
        on_progress: called as the work goes on.

    Raises:
        UsageError: fewer than two classes, an unknown net, or a net or test set that does not fit the samples.
        ForetasteError: the loss became infinite or NaN.
    """
    start = time.perf_counter()
    plan = TrainingPlan() if plan is None else plan
    check(len(np.unique(samples.labels)) >= 2, "a classifier needs samples of at least two classes to train on")
    if test is not None and (test.classes != samples.classes or test.sample_shape != samples.sample_shape):
        raise UsageError("the test set's classes or input shape are not those of the training set")
    compute = Compute()
    model = build(net, samples.sample_shape, samples.classes, generator=draws(seed, 0), width=plan.width)
    model.preprocess.measure(samples.inputs)
    loss_of_step = supervised(DeviceSet(samples, compute.device), plan, seed, compute)
    optimise(
        model,
        loss_of_step,
        steps=plan.epochs * Batches(len(samples), plan.batch_size, seed).per_epoch,
        sgd=plan.sgd(),
        compute=compute,
        phase="train",
        on_progress=on_progress,
        checkpoint=None if workdir is None else workdir / "train.safetensors",
        key=fingerprint(samples, model.name, plan, seed),
    )
    metrics: dict[str, Any] = {
        "net": model.name,
        "width": model.width,
        "seed": seed,
        "epochs": plan.epochs,
        "n_samples": len(samples),
        "n_classes": len(samples.classes),
        "train_accuracy": accuracy(model, samples),
    }
    if test is not None and len(test):
        metrics |= {"n_test": len(test), "test_accuracy": accuracy(model, test)}
    metrics["seconds"] = time.perf_counter() - start
    return Trained(net=model.cpu().eval(), metrics=metrics, leads=compute.leads)


def supervised(data: DeviceSet, plan: TrainingPlan, seed: int, compute: Compute) -> Callable[[nn.Module, int], Tensor]:
    """Return ``loss_of_step`` for ordinary training: cross-entropy on augmented batches in a fresh order per epoch.

    Args:
        data: the samples.
        plan: how to train.
        seed: where the order and the augmentation come from.
        compute: where to work.
    """
    batches = Batches(len(data), plan.batch_size, seed)

    def loss_of_step(net: nn.Module, step: int) -> Tensor:
        inputs, labels = data.batch(compute.share(batches(step)))
        if inputs.ndim == 4 and (plan.shift or plan.flip):
            inputs = augment(inputs, draws(seed, 2, step, compute.rank), shift=plan.shift, flip=plan.flip)
        return nn.functional.cross_entropy(net(inputs), labels)

    return loss_of_step


# Using a net.


def predict(net: Net, inputs: NDArray[Any], *, batch_size: int = 1000) -> NDArray[np.float32]:
    """Return the logits, ``float32 (N, K)``, of raw inputs ``uint8 (N, H, W, C)`` or ``float32 (N, D)``.

    The inputs may be memory-mapped; only one batch at a time is in memory. The net is left as it is and where it is;
    the work is done on the GPU if there is one.
    """
    device, home, was_training = Compute().device, net.head.weight.device, net.training
    logits = np.empty((len(inputs), len(net.classes)), dtype=np.float32)
    net.to(device).eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            for start in range(0, len(inputs), batch_size):
                batch = torch.from_numpy(np.array(inputs[start : start + batch_size])).to(device)
                logits[start : start + batch_size] = net(batch).float().cpu().numpy()
    finally:
        net.to(home).train(was_training)
    return logits


def accuracy(net: Net, samples: Samples) -> float:
    """Return the share of the samples that the net gives their own label, in [0, 1]."""
    return float((predict(net, samples.inputs).argmax(axis=1) == samples.labels).mean())
