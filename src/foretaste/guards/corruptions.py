"""Common image corruptions in five severities, after ImageNet-C (Hendrycks and Dietterich 2019, arXiv:1903.12261).

Written anew for images of any size from 28 pixels a side, grey or RGB. Lengths are shares of the image's shorter side,
so that a severity looks alike at every size. What ImageNet-C takes from photographs (frost) is drawn here, and what it
draws anew for each image (noise, flakes, warps) is one drawing for all: it follows from seed and image size alone. So
an image's corruption does not depend on the other images of a batch.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage, signal

from foretaste.samples import Images

Pixels = NDArray[np.floating[Any]]
"""``float32 (N, H, W, C)``, in [0, 1] before a corruption and possibly outside after it."""
Field = NDArray[np.floating[Any]]
"""``float32 (H, W)``."""

SEVERITIES = 5
"""Severities are 1 to this."""


def corrupt(images: Images, name: str, severity: int, *, seed: int) -> Images:
    """Return corrupted copies of images ``uint8 (N, H, W, C)``.

    Args:
        images: any N ≥ 0.
        name: a key of ``CORRUPTIONS``.
        severity: in [1, 5].
        seed: where what is drawn comes from; the same at every severity.
    """
    if len(images) == 0:
        return images.copy()
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(name)])
    pixels = CORRUPTIONS[name](images / np.float32(255), severity, rng)
    corrupted: Images = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return corrupted


def gaussian_noise(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Add normal noise."""
    amount = [0.04, 0.07, 0.11, 0.16, 0.24][severity - 1]
    return pixels + amount * rng.standard_normal(pixels.shape[1:], dtype=np.float32)


def shot_noise(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Add the noise of counting photons: normal, its variance proportional to the light."""
    amount = [0.06, 0.1, 0.16, 0.24, 0.36][severity - 1]
    return pixels + amount * np.sqrt(pixels) * rng.standard_normal(pixels.shape[1:], dtype=np.float32)


def impulse_noise(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Turn some values to 0 and as many to 1."""
    share = [0.01, 0.03, 0.06, 0.1, 0.17][severity - 1]
    luck = rng.random(pixels.shape[1:])
    return np.where(luck < share / 2, 0, np.where(luck > 1 - share / 2, 1, pixels))


def defocus_blur(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Spread each point over a disc."""
    radius = [0.03, 0.04, 0.055, 0.075, 0.1][severity - 1] * side(pixels)
    reach = int(np.ceil(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return convolve(pixels, np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1))


def glass_blur(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Take each pixel from a random place nearby."""
    reach = [0.02, 0.03, 0.04, 0.055, 0.075][severity - 1] * side(pixels)
    moves = rng.uniform(-reach, reach, (2, *pixels.shape[1:3]))
    return resample(pixels, np.indices(pixels.shape[1:3]) + moves)


def motion_blur(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Spread each point along a line, in one direction for all."""
    length = [0.06, 0.1, 0.14, 0.2, 0.28][severity - 1] * side(pixels)
    reach = int(np.ceil(length / 2))
    angle = rng.uniform(0, np.pi)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = columns * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - columns * np.sin(angle)
    return convolve(pixels, np.clip(length / 2 + 0.5 - abs(along), 0, 1) * np.clip(1 - abs(across), 0, 1))


def zoom_blur(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Average the image over growing magnifications about its centre."""
    most = [1.06, 1.11, 1.16, 1.22, 1.31][severity - 1]
    centre = (np.array(pixels.shape[1:3]).reshape(2, 1, 1) - 1) / 2
    places = np.indices(pixels.shape[1:3]) - centre
    blurred: Pixels = np.mean([resample(pixels, centre + places / zoom) for zoom in np.linspace(1, most, 7)], axis=0)
    return blurred


def snow(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Whiten the image and let flakes fall, drawn out by the wind."""
    share, whiter = [(0.015, 0.9), (0.03, 0.8), (0.045, 0.75), (0.065, 0.65), (0.09, 0.6)][severity - 1]
    # Streaks grow with the image, so that there must be fewer of them to cover as much of it.
    scale = side(pixels) / 32
    flakes = (rng.random(pixels.shape[1:3]) < share / scale).astype(np.float32)[None, :, :, None]
    fallen = 2 * scale * motion_blur(flakes, 2, rng)
    grey = pixels.mean(axis=3, keepdims=True)
    snowy: Pixels = whiter * pixels + (1 - whiter) * np.maximum(pixels, grey * 1.5 + 0.5) + fallen
    return snowy


def frost(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Lay a sheet of bright needles over a darkened image."""
    image, ice = [(0.9, 0.25), (0.8, 0.4), (0.7, 0.5), (0.65, 0.6), (0.55, 0.7)][severity - 1]
    needles = np.abs(clouds(pixels, 1.0, rng) - 0.5) * 2
    frosted: Pixels = image * pixels + ice * needles[:, :, None] ** 2
    return frosted


def fog(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Add drifting clouds of light and compress the contrast as much."""
    amount = [0.3, 0.6, 1.0, 1.5, 2.2][severity - 1]
    return (pixels + amount * clouds(pixels, 1.6, rng)[:, :, None]) / (1 + amount)


def brightness(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Add light everywhere."""
    return pixels + [0.1, 0.2, 0.3, 0.4, 0.5][severity - 1]


def contrast(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Move all values towards the channel's mean."""
    share = [0.6, 0.45, 0.3, 0.18, 0.08][severity - 1]
    mean = pixels.mean(axis=(1, 2), keepdims=True)
    flattened: Pixels = mean + share * (pixels - mean)
    return flattened


def elastic_transform(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Pull the image about smoothly."""
    reach = [0.02, 0.035, 0.05, 0.07, 0.1][severity - 1] * side(pixels)
    noise = rng.standard_normal((2, *pixels.shape[1:3]))
    smooth = ndimage.gaussian_filter(noise, (0, side(pixels) / 12, side(pixels) / 12), mode="reflect")
    return resample(pixels, np.indices(pixels.shape[1:3]) + smooth * (reach / smooth.std()))


def pixelate(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Shrink the image and blow it up again in blocks."""
    share = [0.8, 0.65, 0.5, 0.38, 0.28][severity - 1]
    height, width = pixels.shape[1:3]
    small = (max(round(width * share), 1), max(round(height * share), 1))

    def blocks(picture: Image.Image) -> Image.Image:
        shrunk = picture.resize(small, Image.Resampling.BOX)
        return shrunk.resize((width, height), Image.Resampling.NEAREST)

    return each_picture(pixels, blocks)


def jpeg_compression(pixels: Pixels, severity: int, rng: Generator) -> Pixels:
    """Write the image as a JPEG file of low quality and read it again."""
    quality = [60, 40, 25, 15, 8][severity - 1]

    def through_file(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=quality)
        return Image.open(file)

    return each_picture(pixels, through_file)


CORRUPTIONS: dict[str, Callable[[Pixels, int, Generator], Pixels]] = {
    "gaussian-noise": gaussian_noise,
    "shot-noise": shot_noise,
    "impulse-noise": impulse_noise,
    "defocus-blur": defocus_blur,
    "glass-blur": glass_blur,
    "motion-blur": motion_blur,
    "zoom-blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic-transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg-compression": jpeg_compression,
}
"""The corruptions by name. Their places in this dictionary are part of the seed."""


def side(pixels: Pixels) -> int:
    """Return the images' shorter side in pixels."""
    return int(min(pixels.shape[1:3]))


def convolve(pixels: Pixels, kernel: NDArray[np.float64]) -> Pixels:
    """Convolve every channel with a kernel ``(2 R + 1, 2 R + 1)``, scaled to sum 1, the edges repeated."""
    reach = len(kernel) // 2
    padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    weights = (kernel / kernel.sum()).astype(np.float32)[None, :, :, None]
    blurred: Pixels = signal.fftconvolve(padded, weights, mode="valid", axes=(1, 2)).astype(np.float32)
    return blurred


def resample(pixels: Pixels, places: NDArray[np.float64]) -> Pixels:
    """Take every image's values at the places ``(2, H, W)``: rows and columns, between pixels bilinearly."""
    height, width = pixels.shape[1:3]
    rows, columns = np.clip(places[0], 0, height - 1), np.clip(places[1], 0, width - 1)
    top, left = np.minimum(rows.astype(int), height - 2), np.minimum(columns.astype(int), width - 2)
    down, right = ((rows - top)[..., None].astype(np.float32), (columns - left)[..., None].astype(np.float32))
    upper = (1 - right) * pixels[:, top, left] + right * pixels[:, top, left + 1]
    lower = (1 - right) * pixels[:, top + 1, left] + right * pixels[:, top + 1, left + 1]
    taken: Pixels = (1 - down) * upper + down * lower
    return taken


def clouds(pixels: Pixels, steepness: float, rng: Generator) -> Field:
    """Return noise of the images' size in [0, 1] whose amplitude falls with frequency to the power of ``steepness``."""
    height, width = pixels.shape[1:3]
    frequency = np.hypot(fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    noise = fft.irfft2(fft.rfft2(rng.standard_normal((height, width))) / frequency**steepness, (height, width))
    drawn: Field = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    return drawn


def each_picture(pixels: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    """Put every image through a function of Pillow pictures."""
    grey = pixels.shape[3] == 1
    raw = np.rint(pixels * 255).astype(np.uint8)
    changed = [np.asarray(change(Image.fromarray(image[..., 0] if grey else image))) for image in raw]
    return np.stack(changed).reshape(pixels.shape).astype(np.float32) / 255
