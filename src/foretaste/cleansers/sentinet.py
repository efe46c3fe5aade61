"""SentiNet: the region that decides the victim's answer decides that of other images, too, if it is a trigger."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import softmax

from foretaste.cleansers._base.conclusion import conclude_by_sample, references, require_images
from foretaste.cleansers._base.victim import AT_ONCE, OnVictim, Victim, on_device, recorded
from foretaste.cleansers.verdict import Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Images, Mask, Samples
from foretaste.training import check

FINEST = 4
"""Places each way that a stage's map has at least, to say where something is."""

FEWEST = 8
"""Clean images that the overlays and the decision boundary take at least."""


@dataclass(frozen=True, kw_only=True)
class SentiNet(OnVictim):
    """Paste what decides an answer onto clean images and see if it decides theirs (Chou et al. 2020, arXiv:1812.00292).

    Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) shows where in a sample its predicted label comes from. The
    region is pasted onto clean images: how often they are then given that label is the *fooled* share. The region's
    place filled with noise gives the *confidence* that is left. Clean samples can fool too, if their region is large,
    and then little confidence is left. A parabola through the clean samples that fool most is the boundary; samples
    that are farther above it than any clean one are flagged.

    Needs images, and a network whose stages have maps. It finds compact triggers, and none that lie over the whole
    image.

    Attributes:
        threshold: the region is where Grad-CAM is above this share of its highest value, in (0, 1). The paper has 0.15;
            on small images, whose maps have a few places each way, that is nearly everything.
        overlays: clean images that a region is pasted onto, ≥ 1.
        calibration: clean images at most that the boundary is fitted to, ≥ 4.
        substitute: samples of the inspected set that stand in for a missing clean set, ≥ 8.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "sentinet"
    summary: ClassVar[str] = "regions that decide other images' answers, too (arXiv:1812.00292)"

    threshold: float = 0.5
    overlays: int = 16
    calibration: int = 400
    substitute: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.threshold < 1, "threshold must be in (0, 1)")
        check(self.overlays >= 1, "overlays must be 1 or more")
        check(self.calibration >= 4, "calibration must be 4 or more")
        check(self.substitute >= FEWEST, f"substitute must be {FEWEST} or more")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``.

        Raises:
            UsageError: the samples are feature vectors, there are fewer than 8 clean ones, or the network has no maps.
        """
        start, rng = time.perf_counter(), np.random.default_rng(seed)
        require_images(self.name, samples)
        trusted, notes = references(samples, clean, self.substitute, rng)
        if len(trusted) < FEWEST:
            raise UsageError(f"{self.name} needs {FEWEST} clean samples or more, not {len(trusted)}")
        victim = self.victim(samples, seed, workdir, on_progress)
        pasted_onto, unseen = trusted.split(min(self.overlays, len(trusted) // 2), rng)
        overlays = np.asarray(pasted_onto.inputs)
        drawn = unseen[np.sort(rng.permutation(len(unseen))[: self.calibration])]
        known = self.measure(victim, drawn.inputs, overlays, rng)
        boundary = boundary_of(*known)
        fooled, confidence = self.measure(victim, samples.inputs, overlays, rng, on_progress)
        farthest = float((known[0] - np.polyval(boundary, known[1])).max())
        return conclude_by_sample(
            self.name,
            samples,
            scores=fooled - np.polyval(boundary, confidence),
            limit=float(np.nextafter(farthest, np.inf)),
            unit="fooled share above the boundary",
            seed=seed,
            start=start,
            notes=notes,
        )

    def measure(
        self,
        victim: Victim,
        images: Images,
        overlays: Images,
        rng: Generator,
        on_progress: OnProgress = silent,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Paste each image's deciding region onto the overlays.

        Args:
            victim: the classifier.
            images: ``uint8 (N, H, W, C)``, may be memory-mapped.
            overlays: clean images, ``uint8 (M, H, W, C)``.
            rng: where the noise comes from.
            on_progress: called as the work goes on.

        Returns:
            Of the overlays that do not have the image's label by themselves, the share that are given it with the
            image's region on them; and the mean confidence in the overlays' answers with noise there instead. Each is
            ``(N,)``, in [0, 1].
        """
        fooled, confidence = np.empty(len(images)), np.empty(len(images))
        before = victim.predict(overlays).argmax(axis=1)
        noise = rng.integers(0, 256, overlays.shape[1:], dtype=np.uint8)
        at_once = max(AT_ONCE // len(overlays), 1)
        for start in range(0, len(images), at_once):
            batch = np.asarray(images[start : start + at_once])
            predicted, regions = grad_cam(victim, batch, self.threshold)
            here = regions[:, None, :, :, None]
            shape = (len(batch), len(overlays))
            with_region = np.where(here, batch[:, None], overlays).reshape(-1, *overlays.shape[1:])
            with_noise = np.where(here, noise, overlays).reshape(-1, *overlays.shape[1:])
            answers = victim.predict(with_region).argmax(axis=1).reshape(shape)
            certain = softmax(victim.predict(with_noise), axis=1).max(axis=1).reshape(shape)
            others = before != predicted[:, None]
            turned = ((answers == predicted[:, None]) & others).sum(axis=1)
            fooled[start : start + len(batch)] = turned / np.maximum(others.sum(axis=1), 1)
            confidence[start : start + len(batch)] = certain.mean(axis=1)
            on_progress(Progress(phase="paste regions", done=start + len(batch), total=len(images)))
        return fooled, confidence


def grad_cam(victim: Victim, images: Images, threshold: float) -> tuple[NDArray[np.int64], Mask]:
    """Return each image's predicted label, ``(B,)``, and where it comes from, ``bool (B, H, W)``.

    The maps are those of the last stage that has four places or more each way.

    Args:
        victim: the classifier.
        images: ``uint8 (B, H, W, C)``.
        threshold: the region is where the map is above this share of its highest value.

    Raises:
        UsageError: no stage of the network has such maps.
    """
    with on_device(victim.net) as device, recorded(victim.net.stages) as seen, torch.enable_grad():
        logits = victim.net(torch.from_numpy(images).to(device))
        fine = [output for output in seen if output.ndim == 4 and min(output.shape[2:]) >= FINEST]
        if not fine:
            raise UsageError(
                f"sentinet needs maps of {FINEST}×{FINEST} places or more, and no stage of the net {victim.net.name} "
                "has them; take another net or larger images"
            )
        [gradients] = torch.autograd.grad(logits.amax(dim=1).sum(), [fine[-1]])
        weights = gradients.mean(dim=(2, 3), keepdim=True)
        maps = (weights * fine[-1]).sum(dim=1, keepdim=True).relu()
        maps = torch.nn.functional.interpolate(maps, images.shape[1:3], mode="bilinear")[:, 0]
        regions = maps > threshold * maps.amax(dim=(1, 2), keepdim=True)
        return logits.argmax(dim=1).cpu().numpy(), regions.detach().cpu().numpy()


def boundary_of(fooled: NDArray[np.float64], confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coefficients, highest first, of a parabola through the highest fooled share per tenth of confidence.

    Args:
        fooled: of clean samples, ``(N,)``.
        confidence: theirs, ``(N,)``.
    """
    bins = np.minimum((confidence * 10).astype(int), 9)
    tops = [np.flatnonzero(bins == one)[fooled[bins == one].argmax()] for one in np.unique(bins)]
    coefficients: NDArray[np.float64] = np.polyfit(confidence[tops], fooled[tops], min(2, len(tops) - 1))
    return coefficients
