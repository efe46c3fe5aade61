"""ASSET: unlearn the inspected set, learn the clean one; only what the clean set lacks stays unlearnt."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from foretaste import __version__
from foretaste.cleansers._base.conclusion import conclude_by_sample
from foretaste.cleansers._base.victim import OnVictim
from foretaste.cleansers.verdict import Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Samples
from foretaste.training import Adam, Batches, Compute, DeviceSet, check, content, fingerprint, optimise, predict


@dataclass(frozen=True, kw_only=True)
class ASSET(OnVictim):
    """Offset two losses so that only poison's stays high (Pan et al. 2023, arXiv:2302.11408).

    The classifier, trained on the inspected set, is trained on: towards a low loss on clean samples and towards a high
    one on inspected samples. What is clean in the inspected set is like the clean set, so that the two cancel; what is
    not has nothing to hold its loss down. The threshold is where a normal distribution through the lower half of the
    losses has nearly ended.

    Departing from the paper, the loss that grows is bounded (the log likelihood of *another* label), and there is no
    inner loop that gathers suspects into batches of their own; so it is weaker where poison is rare.

    Works on images and on feature vectors. Needs a clean set.

    Attributes:
        steps: of the offset, ≥ 1.
        offset_batch_size: clean samples, and as many inspected ones, in a step, ≥ 2.
        offset_learning_rate: of the offset's first step, > 0.
        density: a sample is flagged if the normal density of its loss is below this, in (0, 1); the authors' code has
            0.001.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "asset"
    summary: ClassVar[str] = "what stays unlearnt when a clean set offsets the inspected one (arXiv:2302.11408)"

    steps: int = 300
    offset_batch_size: int = 128
    offset_learning_rate: float = 1e-3
    density: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.steps >= 1, "steps must be 1 or more")
        check(self.offset_batch_size >= 2, "offset_batch_size must be 2 or more")
        check(self.offset_learning_rate > 0, "offset_learning_rate must be above 0")
        check(0 < self.density < 1, "density must be in (0, 1)")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``.

        Raises:
            UsageError: there is no clean set of two samples or more.
        """
        start = time.perf_counter()
        if clean is None or len(clean) < 2:
            raise UsageError("asset offsets the inspected set by a clean one; give a clean set of two samples or more")
        net = copy.deepcopy(self.victim(samples, seed, workdir, on_progress).net)
        compute = Compute()
        inspected, known = DeviceSet(samples, compute.device), DeviceSet(clean, compute.device)
        of_inspected = Batches(len(samples), self.offset_batch_size, seed)
        of_known = Batches(len(clean), self.offset_batch_size, seed)

        def loss_of_step(detector: nn.Module, step: int) -> Tensor:
            inputs, labels = known.batch(compute.share(of_known(step)))
            learnt = nn.functional.cross_entropy(detector(inputs), labels)
            inputs, labels = inspected.batch(compute.share(of_inspected(step)))
            return learnt + unlikelihood(detector(inputs), labels)

        optimise(
            net,
            loss_of_step,
            steps=self.steps,
            sgd=Adam(learning_rate=self.offset_learning_rate),
            compute=compute,
            phase="offset",
            on_progress=on_progress,
            checkpoint=None if workdir is None else workdir / "asset.safetensors",
            key=fingerprint(samples, content(samples), clean, content(clean), self, seed, __version__),
        )
        losses = losses_of(predict(net, samples.inputs), samples.labels)
        return conclude_by_sample(
            self.name,
            samples,
            scores=losses,
            limit=end_of_lower_half(losses, self.density),
            unit="loss after the offset, in nats",
            seed=seed,
            start=start,
        )


def unlikelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log(1 - p), where p is the probability of the own label: small if the loss is large."""
    own = nn.functional.one_hot(labels, logits.shape[1]).bool()
    others = logits.masked_fill(own, float("-inf")).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - others).mean()


def losses_of(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cross-entropy of each label in nats, ``(N,)``."""
    losses: NDArray[np.float64] = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return losses


def end_of_lower_half(losses: NDArray[np.float64], density: float) -> float:
    """Return where the density of a normal distribution through the lower half of the losses falls to ``density``.

    Its mean is the median, and its deviation is that of the losses below, mirrored.
    """
    centre = float(np.median(losses))
    deviation = max(float(np.sqrt(np.mean((losses[losses <= centre] - centre) ** 2))), 1e-9)
    height = 1 / (deviation * np.sqrt(2 * np.pi))
    return centre + deviation * float(np.sqrt(2 * np.log(max(height / density, 1.0 + 1e-9))))
