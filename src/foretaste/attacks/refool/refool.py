"""A reflection as in a window pane, over images of the target class, whose labels stay true."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, shift

from foretaste.attacks._base.attack import Poisoned, Weights, check_choice, check_images, check_range, trained
from foretaste.attacks._base.clean_label import CleanLabel
from foretaste.attacks._base.picture import in_channels, read_picture
from foretaste.attacks._base.pixels import Pixels, change
from foretaste.errors import UsageError
from foretaste.io.images import SUFFIXES
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples

Kind = Literal["sharp", "blurred", "ghost"]
"""A reflection in focus, out of focus, and doubled by a thick pane."""
BLUR = (0.03, 0.08)
"""Range of the standard deviation of a blurred reflection, as a share of the image's shorter side."""
GHOST_SHIFT = (0.05, 0.15)
"""Range of the distance between the two images of a ghost along each axis, as a share of the shorter side."""
GHOST_WEIGHT = (0.5, 0.85)
"""Range of the weight of the nearer of the two; the other has the rest."""
CANVAS = 128
"""Side in pixels that scenes are drawn at before they are scaled to the images' size."""


@dataclass(frozen=True, kw_only=True)
class Refool(CleanLabel):
    """Lay reflections over images of the target class and leave their labels (Liu et al., ECCV 2020, arXiv:2007.02343).

    An image becomes ``image + intensity * reflection``. The reflections are few and come in the paper's three kinds:
    in focus, out of focus, and as a ghost, two shifted copies. Like the paper, the attack keeps those that work best on
    classifiers that it trains; where the paper takes photographs, scenes are drawn here, or pictures of a folder taken.

    Attributes:
        rate: share of the whole training set to poison, in (0, 1], all of it in the target class.
        target: label that the trigger forces, in [0, K).
        intensity: lowest and highest intensity of a reflection, drawn for each image, in (0, 1].
        kinds: kinds of reflections, taken in turn; at least one.
        count: number of different reflections, in [1, 10000].
        selections: rounds of selection, at least 0; in each, ``count`` more reflections are tried.
        epochs: passes over the training set for the classifier of each round, at least 1.
        pictures: a folder of image files to reflect, taken in the order of their names; drawn scenes when left out.
        picture_seed: what scenes, blur and shifts are drawn from, at least 0.

    Raises:
        UsageError: a field is out of range.
    """

    summary: ClassVar[str] = "reflections over the target class, labels stay true (Liu et al. 2020)"
    unfitted: ClassVar[frozenset[str]] = frozenset()

    rate: float = 0.03
    intensity: tuple[float, float] = (0.05, 0.4)
    kinds: tuple[Kind, ...] = ("sharp", "blurred", "ghost")
    count: int = 12
    pictures: Path | None = None
    picture_seed: int = 0
    selections: int = 3
    epochs: int = 3
    weights: Weights | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.intensity
        check_range("intensity", high, 0, 1, open_low=True)
        check_range("intensity", low, 0, high, open_low=True)
        for kind in self.kinds:
            check_choice("kinds", kind, get_args(Kind))
        if not self.kinds:
            raise UsageError("kinds must name at least one kind of reflection")
        check_range("count", self.count, 1, 10_000)
        check_range("picture_seed", self.picture_seed, 0, math.inf)
        check_range("selections", self.selections, 0, math.inf)
        check_range("epochs", self.epochs, 1, math.inf)

    def fit(self, samples: Samples, *, seed: int, workdir: Path | None, on_progress: OnProgress) -> Weights:
        """Select the reflections that work best.

        Raises:
            UsageError: the folder of pictures holds none, or the set has samples of one class only.
            ForetasteError: a picture cannot be read, or a training failed.
        """
        from foretaste.attacks.refool.selection import select

        return select(
            samples,
            self.candidates(*samples.sample_shape),
            self.lay,
            target=self.target,
            n_poison=round(self.rate * len(samples)),
            count=self.count,
            rounds=self.selections,
            epochs=self.epochs,
            seed=seed,
            workdir=workdir,
            on_progress=on_progress,
        )

    def poison(self, samples: Samples, rng: Generator) -> Poisoned:
        """Lay reflections over ``rate`` of the set, all chosen in the target class; labels stay.

        Raises:
            UsageError: the set has no such class, the class holds fewer samples than that, these are not images, or
                the reflections are not selected yet, or were for images of another shape.
        """
        self.check(samples)
        chosen = self.chosen(samples, rng)
        return Poisoned.from_stamped(samples, chosen, self.stamp(samples.inputs[chosen], rng), self.target)

    def stamp(self, inputs: Images, rng: Generator) -> Images:
        """Return copies of the ``uint8 (N, H, W, C)`` images, each with a reflection and an intensity of its own draw.

        Raises:
            UsageError: these are not images, or the reflections are not selected yet, or were for images of another
                shape.
        """
        check_images(inputs)
        reflections = trained(self.weights, "reflections")["reflections"]
        if reflections.shape[1:] != inputs.shape[1:]:
            raise UsageError("the reflections were selected for images of another shape; select them on these first")
        return self.lay(inputs, reflections, rng)

    def lay(self, images: Images, reflections: Pixels, rng: Generator) -> Images:
        """Return copies of the images, each with one of these reflections at an intensity of its own draw."""
        taken = rng.integers(0, len(reflections), len(images))
        intensity = rng.uniform(*self.intensity, len(images)).astype(np.float32)[:, None, None, None]

        def add(pixels: Pixels, rows: slice) -> Pixels:
            pixels += intensity[rows] * reflections[taken[rows]]
            return pixels

        return change(images, add)

    def candidates(self, height: int, width: int, channels: int) -> Pixels:
        """Return all reflections to select from, at full intensity, ``float32 (n, height, width, channels)``, 0 to 255.

        Raises:
            UsageError: the folder of pictures holds none.
            ForetasteError: a picture cannot be read.
        """
        rng = np.random.default_rng(self.picture_seed)
        files = [] if self.pictures is None else picture_files(self.pictures)
        reflections = np.empty((self.count * (self.selections + 1), height, width, channels), dtype=np.float32)
        for number in range(len(reflections)):
            if files:
                picture = read_picture(files[number % len(files)], height, width, channels)
            else:
                picture = in_channels(scene(height, width, rng), channels)
            # Taken again, a picture is reflected in another way.
            turn = sum(divmod(number, len(files))) if files else number
            reflections[number] = reflect(picture, self.kinds[turn % len(self.kinds)], rng)
        return reflections


def picture_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, by name.

    Raises:
        UsageError: there are none.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UsageError(f"{folder} is not a folder with image files in it")
    return files


def reflect(picture: Images, kind: Kind, rng: Generator) -> Pixels:
    """Return how a pane reflects a picture ``uint8 (H, W, C)``: ``float32 (H, W, C)``, 0 to 255."""
    pixels = picture.astype(np.float32)
    shorter = min(picture.shape[:2])
    sigma, distance = rng.uniform(*BLUR) * shorter, rng.uniform(*GHOST_SHIFT, 2) * shorter
    weight = np.float32(rng.uniform(*GHOST_WEIGHT))
    if kind == "blurred":
        return gaussian_filter(pixels, sigma, mode="nearest", axes=(0, 1))
    if kind == "ghost":
        second = shift(pixels, (*distance, 0), order=1, mode="nearest")
        return weight * pixels + (1 - weight) * second
    return pixels


def scene(height: int, width: int, rng: Generator) -> Images:
    """Draw what might stand behind a photographer: sky, houses with lit windows, lamps; ``uint8 (H, W, 3)``."""

    def colour(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(low, high, 3).tolist())

    canvas = Image.new("RGB", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(canvas)
    above, below = np.array(colour(60, 256)), np.array(colour(0, 130))
    for row in range(CANVAS):
        draw.line((0, row, CANVAS, row), tuple(np.rint(above + (below - above) * row / CANVAS).astype(int).tolist()))
    for _ in range(rng.integers(2, 5)):
        left, top = int(rng.integers(-20, CANVAS - 20)), int(rng.integers(20, 90))
        right = left + int(rng.integers(25, 60))
        draw.rectangle((left, top, right, CANVAS), colour(0, 160))
        lit = colour(180, 256)
        for x in range(left + 5, right - 8, 14):
            for y in range(top + 6, CANVAS, 18):
                draw.rectangle((x, y, x + 7, y + 10), lit)
    for _ in range(rng.integers(1, 4)):
        x, y, radius = int(rng.integers(5, CANVAS - 5)), int(rng.integers(5, CANVAS // 2)), int(rng.integers(4, 14))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour(200, 256))
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX))
