"""Frequency: a detector of triggers in the frequencies of an image, trained on triggers made here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.ndimage import zoom
from torch import Tensor, nn

from foretaste import __version__
from foretaste.cleansers._base.conclusion import conclude_by_sample, references, require_images
from foretaste.cleansers._base.victim import AT_ONCE
from foretaste.cleansers.verdict import Verdict
from foretaste.nets import Net, build
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Images, Samples
from foretaste.training import Adam, Compute, check, content, draws, fingerprint, optimise, predict


@dataclass(frozen=True, kw_only=True)
class Frequency:
    """Tell images with a trigger by their discrete cosine transform (Zeng et al. 2021, arXiv:2104.03413).

    Many triggers leave high frequencies that photographs do not have. A small convolutional network is trained to tell
    the frequencies of clean images from those of the same images with one of four kinds of synthetic trigger: a patch
    at a random place, a blend with another image, noise, or a shadow. It is asked about every sample; labels play no
    part. It sees nothing of triggers whose frequencies are those of photographs, and takes noisy or retouched images
    for poison.

    Needs images.

    Attributes:
        steps: of the detector's training, ≥ 1.
        batch_size: images in a step, half of them with a trigger, ≥ 2.
        learning_rate: of the first step, > 0.
        width: channels of the detector's first layers, ≥ 1.
        substitute: samples of the inspected set that stand in for a missing clean set, ≥ 2.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "frequency"
    summary: ClassVar[str] = "frequencies that photographs do not have, by a detector (arXiv:2104.03413)"

    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 1e-3
    width: int = 16
    substitute: int = 2000

    def __post_init__(self) -> None:
        check(self.steps >= 1, "steps must be 1 or more")
        check(self.batch_size >= 2, "batch_size must be 2 or more")
        check(self.learning_rate > 0, "learning_rate must be above 0")
        check(self.width >= 1, "width must be 1 or more")
        check(self.substitute >= 2, "substitute must be 2 or more")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``.

        Raises:
            UsageError: the samples are feature vectors, or too small.
        """
        start = time.perf_counter()
        require_images(self.name, samples)
        trusted, notes = references(samples, clean, self.substitute, np.random.default_rng(seed))
        assert samples.images is not None
        assert trusted.images is not None
        detector = self.train(trusted, seed, workdir, on_progress)
        scores = np.empty(len(samples))
        for first in range(0, len(samples), AT_ONCE):
            batch = np.asarray(samples.images[first : first + AT_ONCE])
            logits = predict(detector, frequencies(batch))
            scores[first : first + len(batch)] = logits[:, 1] - logits[:, 0]
            on_progress(Progress(phase="detect", done=first + len(batch), total=len(samples)))
        return conclude_by_sample(
            self.name,
            samples,
            scores=scores,
            limit=0.0,
            unit="log odds of a trigger",
            seed=seed,
            start=start,
            notes=notes,
        )

    def train(self, trusted: Samples, seed: int, workdir: Path | None, on_progress: OnProgress) -> Net:
        """Return a detector whose second logit is that of a trigger."""
        assert trusted.images is not None
        images, compute = trusted.images, Compute()
        detector = build(
            "convnet", trusted.sample_shape, ("clean", "trigger"), generator=draws(seed, 0), width=self.width
        )
        detector.preprocess.measure(frequencies(np.asarray(images[:AT_ONCE])))
        n_pairs = max(self.batch_size // 2, 1)

        def loss_of_step(net: nn.Module, step: int) -> Tensor:
            rng = np.random.default_rng([seed, step])
            batch = np.asarray(images[np.sort(rng.choice(len(images), min(n_pairs, len(images)), replace=False))])
            both = np.concatenate([frequencies(batch), frequencies(with_trigger(batch, rng))])
            truth = torch.arange(2, device=compute.device).repeat_interleave(len(batch))
            return nn.functional.cross_entropy(net(torch.from_numpy(both).to(compute.device)), truth)

        optimise(
            detector,
            loss_of_step,
            steps=self.steps,
            sgd=Adam(learning_rate=self.learning_rate),
            compute=compute,
            phase="train the detector",
            on_progress=on_progress,
            checkpoint=None if workdir is None else workdir / "frequency.safetensors",
            key=fingerprint(trusted, content(trusted), self, seed, __version__),
        )
        return detector.eval()


def frequencies(images: Images) -> NDArray[np.float32]:
    """Return the logarithms of the cosine transform's magnitudes, channel by channel: ``float32 (N, H, W, C)``."""
    transformed = dctn(images.astype(np.float32), axes=(1, 2), norm="ortho")
    magnitudes: NDArray[np.float32] = np.log1p(np.abs(transformed)).astype(np.float32)
    return magnitudes


def with_trigger(images: Images, rng: Generator) -> Images:
    """Return copies of the ``uint8 (N, H, W, C)`` images, each with a synthetic trigger of a random kind."""
    others = images[rng.permutation(len(images))]
    marked = np.empty(images.shape, dtype=np.float64)
    for row, (image, other) in enumerate(zip(images, others, strict=True)):
        trigger = TRIGGERS[rng.integers(len(TRIGGERS))]
        marked[row] = trigger(image.astype(np.float64), other, rng)
    stamped: Images = np.rint(marked.clip(0, 255)).astype(np.uint8)
    return stamped


def patch(image: NDArray[np.float64], _: Images, rng: Generator) -> NDArray[np.float64]:
    """Paste random colours, or one colour, onto a rectangle of up to a quarter of each side."""
    height, width, channels = image.shape
    rows, columns = rng.integers(1, max(height // 4, 1) + 1), rng.integers(1, max(width // 4, 1) + 1)
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    size = (rows, columns, channels) if rng.random() < 0.5 else (1, 1, channels)
    image[top : top + rows, left : left + columns] = rng.integers(0, 256, size)
    return image


def blend(image: NDArray[np.float64], other: Images, rng: Generator) -> NDArray[np.float64]:
    """Blend another image of the batch in, at an opacity of 0.1 to 0.3."""
    opacity = rng.uniform(0.1, 0.3)
    return (1 - opacity) * image + opacity * other


def noise(image: NDArray[np.float64], _: Images, rng: Generator) -> NDArray[np.float64]:
    """Add normal noise of a standard deviation of 5 to 25 values."""
    return image + rng.normal(0, rng.uniform(5, 25), image.shape)


def shadow(image: NDArray[np.float64], _: Images, rng: Generator) -> NDArray[np.float64]:
    """Darken or lighten smoothly, by up to 40 %."""
    height, width, _ = image.shape
    coarse = rng.uniform(0.6, 1.4, (4, 4))
    return image * zoom(coarse, (height / 4, width / 4), order=1)[:, :, None]


TRIGGERS = (patch, blend, noise, shadow)
