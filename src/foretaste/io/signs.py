"""Synthetic traffic signs: a data set that needs no download, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from foretaste.errors import UsageError
from foretaste.samples import Images, Samples

SIDE = 32
"""Height and width of the images, in pixels."""

Colour = tuple[int, int, int]
Point = tuple[float, float]

WHITE, BLACK = (238, 238, 234), (28, 28, 30)
RED, BLUE, YELLOW, GREY = (186, 24, 38), (12, 78, 162), (248, 186, 16), (120, 122, 124)


def draw_signs(n: int = 6000, seed: int = 0) -> Samples:
    """Draw photographs of European traffic signs: same seed, same pixels; other seeds give independent sets.

    Pose, light, blur, noise and background differ from image to image. Sample ``i`` shows class ``i mod K`` and depends
    on nothing but the seed and ``i``, so a smaller set is the head of a larger one.

    Args:
        n: how many, at least 0.
        seed: where all random numbers come from, at least 0.

    Returns:
        ``uint8 (n, 32, 32, 3)`` images of the 16 classes of ``SIGNS``, balanced, with ids like "signs/0-00042".

    Raises:
        UsageError: ``n`` or ``seed`` is negative.
    """
    if n < 0 or seed < 0:
        raise UsageError(f"n and seed must be 0 or more, not {n} and {seed}")
    plates = [draw_plate(draw) for draw in SIGNS.values()]
    images = np.empty((n, SIDE, SIDE, 3), dtype=np.uint8)
    for row in range(n):
        images[row] = photograph(plates[row % len(plates)], np.random.default_rng([seed, row]))
    ids = [f"signs/{seed}-{row:05d}" for row in range(n)]
    return Samples.from_arrays(images, np.arange(n) % len(plates), tuple(SIGNS), ids)


# The camera.

CANVAS = 2 * SIDE
"""Scenes are drawn at twice the final size and then reduced, which smooths every edge."""


def photograph(plate: Image.Image, rng: Generator) -> Images:
    """Return one photograph of the sign, ``uint8 (32, 32, 3)``."""
    scene = draw_scene(rng)
    sign = pose(plate, rng)
    scene.paste(shade(sign, rng), (0, 0), sign.getchannel("A"))
    if rng.random() < 0.25:
        cast_shadow(scene, rng)
    scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.7)))
    return expose(scene.reduce(2), rng)


def pose(plate: Image.Image, rng: Generator) -> Image.Image:
    """Place the sign in the canvas: size, place, rotation and perspective."""
    fill = rng.uniform(0.64, 0.98)
    angle = rng.normal(0, 0.11)
    turn = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    squeeze = np.array([rng.uniform(0.78, 1.0), rng.uniform(0.92, 1.0)])
    canvas = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) + rng.normal(0, 0.08, 2)
    # Pillow asks where in the plate each corner of the canvas lies, so everything here is the inverse of what one sees.
    corners = (canvas @ turn) / (fill * squeeze) + rng.normal(0, 0.05, (4, 2))
    quad = ((corners + 1) / 2 * plate.width).ravel().tolist()
    return plate.transform((CANVAS, CANVAS), Image.Transform.QUAD, quad, Image.Resampling.BILINEAR)


def shade(sign: Image.Image, rng: Generator) -> Image.Image:
    """Fade the sign's paint and let the light fall on it from one side."""
    rgb = np.asarray(sign.convert("RGB"), dtype=np.float32)
    grey = rgb.mean(axis=2, keepdims=True)
    faded = grey + (rgb - grey) * np.float32(rng.uniform(0.55, 1.05))
    across, down = rng.normal(0, 0.12, 2)
    ramp = np.linspace(-1, 1, CANVAS, dtype=np.float32)
    light = rng.uniform(0.6, 1.1) + across * ramp[None, :, None] + down * ramp[:, None, None]
    return to_image(faded * light.astype(np.float32))


def cast_shadow(scene: Image.Image, rng: Generator) -> None:
    """Darken what lies on one side of a random edge, as a branch or a lorry does."""
    edge = rng.uniform(0, CANVAS, 2)
    far = 0 if rng.random() < 0.5 else CANVAS
    mask = Image.new("L", scene.size)
    strength = int(rng.uniform(60, 150))
    ImageDraw.Draw(mask).polygon([(far, 0), (edge[0], 0), (edge[1], CANVAS), (far, CANVAS)], fill=strength)
    scene.paste((10, 12, 18), (0, 0), mask)


def expose(scene: Image.Image, rng: Generator) -> Images:
    """Give the photograph its exposure, contrast, white balance and sensor noise."""
    rgb = np.asarray(scene, dtype=np.float32) / 255
    exposure = np.exp(rng.normal(-0.25, 0.35)) * (1 + rng.normal(0, 0.05, 3))
    haze = rng.uniform(0, 0.25)
    rgb = rgb * exposure.astype(np.float32) * (1 - haze) + haze * rng.uniform(0.3, 0.8)
    rgb += rng.normal(0, rng.uniform(0.005, 0.045), rgb.shape)
    photo: Images = np.rint(rgb.clip(0, 1) * 255).astype(np.uint8)
    return photo


# What stands behind the sign.

SKY = ((118, 160, 214), (196, 210, 226), (226, 226, 224), (150, 160, 172))
GROUND = ((58, 82, 38), (88, 104, 52), (104, 92, 68), (96, 96, 98), (132, 118, 104), (50, 52, 50), (146, 96, 76))


def draw_scene(rng: Generator) -> Image.Image:
    """Draw a cluttered background: sky, ground or houses, foliage, stray edges, the sign's pole."""
    top = np.array(pick(SKY if rng.random() < 0.6 else GROUND, rng), dtype=np.float32)
    bottom = np.array(pick(GROUND, rng), dtype=np.float32)
    horizon, softness = rng.uniform(-0.2, 1.2), rng.uniform(0.02, 0.5)
    height = np.linspace(0, 1, CANVAS, dtype=np.float32)
    mix = ((height - horizon) / softness + 0.5).clip(0, 1)[:, None, None]
    # Leaves are mottled where a wall or the sky is not: the lower part gets more of the texture.
    mottle = texture(rng) * (8 + 60 * rng.random() * (0.25 + 0.75 * mix))
    scene = to_image(top * (1 - mix) + bottom * mix + mottle)
    pen = ImageDraw.Draw(scene)
    for _ in range(rng.integers(0, 5)):
        colour = pick(GROUND if rng.random() < 0.8 else SKY, rng)
        x, y = rng.uniform(-10, CANVAS, 2)
        width, depth = rng.uniform(3, 40, 2)
        lean = rng.normal(0, 5)
        pen.polygon([(x, y), (x + width, y), (x + width + lean, y + depth), (x + lean, y + depth)], fill=colour)
    if rng.random() < 0.7:
        middle, radius = CANVAS / 2 + rng.normal(0, 3), rng.uniform(1, 2.5)
        tone = int(rng.uniform(70, 180))
        pen.rectangle([middle - radius, CANVAS / 2, middle + radius, CANVAS], fill=(tone, tone, tone))
    return scene


def texture(rng: Generator) -> NDArray[np.float32]:
    """Return smooth noise of three grain sizes, about unit variance: ``float32 (CANVAS, CANVAS, 1)``."""
    total = np.zeros((CANVAS, CANVAS), dtype=np.float32)
    for cells in (5, 12, 28):
        grid = Image.fromarray(rng.normal(0, 0.8, (cells, cells)).astype(np.float32))
        total += np.asarray(grid.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC))
    return total[..., None]


def pick(colours: tuple[Colour, ...], rng: Generator) -> Colour:
    """Pick a colour and vary it."""
    red, green, blue = (
        int(c) for c in (rng.choice(colours) * rng.uniform(0.75, 1.15) + rng.normal(0, 8, 3)).clip(0, 255)
    )
    return red, green, blue


def to_image(rgb: NDArray[np.float32]) -> Image.Image:
    """Return ``float32 (H, W, 3)`` values, cut to [0, 255], as a picture."""
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8))


# The signs themselves, in coordinates from -1 (left, top) to 1 (right, bottom).

FINE = 768
"""Side of the sheet that a sign is drawn on, in pixels; reduced to a plate of ``FINE / 8``."""


def draw_plate(draw: Callable[[Sheet], None]) -> Image.Image:
    """Draw one sign as it left the factory: RGBA, transparent around it."""
    sheet = Sheet()
    draw(sheet)
    return sheet.image.reduce(8)


class Sheet:
    """A transparent sheet to draw one sign on."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (FINE, FINE))
        self.pen = ImageDraw.Draw(self.image)

    def disc(self, radius: float, colour: Colour, x: float = 0, y: float = 0) -> None:
        """Fill a circle around (x, y)."""
        self.pen.ellipse([*self.at((x - radius, y - radius)), *self.at((x + radius, y + radius))], fill=colour)

    def polygon(self, colour: Colour, *points: Point) -> None:
        """Fill a polygon."""
        self.pen.polygon([self.at(point) for point in points], fill=colour)

    def box(self, colour: Colour, left: float, top: float, right: float, bottom: float, radius: float = 0) -> None:
        """Fill a rectangle, with round corners if there is a radius."""
        self.pen.rounded_rectangle([*self.at((left, top)), *self.at((right, bottom))], radius * FINE / 2, fill=colour)

    def stroke(self, colour: Colour, width: float, *points: Point) -> None:
        """Draw a line through the points, round at both ends and at every bend."""
        self.pen.line([self.at(point) for point in points], fill=colour, width=round(width * FINE / 2))
        for x, y in points:
            self.disc(width / 2, colour, x, y)

    def arc(self, colour: Colour, radius: float, width: float, start: float, end: float) -> None:
        """Draw an arc around the middle, clockwise from ``start`` to ``end`` degrees (0: right)."""
        outer = radius + width / 2
        box = [*self.at((-outer, -outer)), *self.at((outer, outer))]
        self.pen.arc(box, start, end, fill=colour, width=round(width * FINE / 2))

    def text(self, text: str, colour: Colour, width: float, height: float) -> None:
        """Write bold text in the middle, stretched to a box of this size."""
        mask = Image.new("L", (FINE, FINE // 2))
        font = ImageFont.load_default(size=FINE / 4)
        ImageDraw.Draw(mask).text((20, 20), text, fill=255, font=font, stroke_width=7)
        size = round(width * FINE / 2), round(height * FINE / 2)
        letters = mask.crop(mask.getbbox()).resize(size, Image.Resampling.BICUBIC)
        self.image.paste(colour, ((FINE - size[0]) // 2, (FINE - size[1]) // 2), letters)

    @staticmethod
    def at(point: Point) -> Point:
        """Return the pixel of a point."""
        return (point[0] + 1) / 2 * FINE, (point[1] + 1) / 2 * FINE


def ring(n: int, radius: float, start: float, y: float = 0) -> list[Point]:
    """Return the corners of a regular polygon around (0, y), the first at ``start`` degrees (0: right, 90: down)."""
    angles = [(start + 360 * k / n) * pi / 180 for k in range(n)]
    return [(radius * cos(angle), y + radius * sin(angle)) for angle in angles]


def stop(sheet: Sheet) -> None:
    """Red octagon with the word."""
    sheet.polygon(WHITE, *ring(8, 1.0, 22.5))
    sheet.polygon(RED, *ring(8, 0.93, 22.5))
    sheet.text("STOP", WHITE, 1.5, 0.56)


def give_way(sheet: Sheet) -> None:
    """White triangle on its tip, red rim."""
    sheet.polygon(RED, *ring(3, 1.1, 90, -0.25))
    sheet.polygon(WHITE, *ring(3, 0.66, 90, -0.25))


def no_entry(sheet: Sheet) -> None:
    """Red disc, white bar."""
    sheet.disc(0.98, WHITE)
    sheet.disc(0.93, RED)
    sheet.box(WHITE, -0.7, -0.17, 0.7, 0.17)


def prohibition(sheet: Sheet) -> None:
    """White disc, red rim: no vehicles, and the frame of other prohibitions."""
    sheet.disc(0.98, WHITE)
    sheet.disc(0.95, RED)
    sheet.disc(0.71, WHITE)


def speed_limit(limit: str) -> Callable[[Sheet], None]:
    """Return how to draw a speed limit."""

    def draw(sheet: Sheet) -> None:
        prohibition(sheet)
        sheet.text(limit, BLACK, 1.14, 0.74)

    return draw


def no_overtaking(sheet: Sheet) -> None:
    """A red car passing a black one, in a red rim."""
    prohibition(sheet)
    for x, colour in ((-0.3, RED), (0.3, BLACK)):
        sheet.polygon(colour, (x - 0.17, -0.22), (x + 0.17, -0.22), (x + 0.22, 0), (x - 0.22, 0))
        sheet.box(colour, x - 0.25, -0.03, x + 0.25, 0.22, 0.04)
        for wheel in (x - 0.17, x + 0.17):
            sheet.box(colour, wheel - 0.06, 0.2, wheel + 0.06, 0.33)


def end_of_limits(sheet: Sheet) -> None:
    """White disc with black slanting bars."""
    sheet.disc(0.98, GREY)
    sheet.disc(0.93, WHITE)
    for shift in (-0.2, -0.07, 0.07, 0.2):
        sheet.stroke(BLACK, 0.06, (-0.55 + shift, 0.55 + shift), (0.55 + shift, -0.55 + shift))


def priority_road(sheet: Sheet) -> None:
    """Yellow diamond, white rim."""
    sheet.polygon(BLACK, *ring(4, 1.0, 0))
    sheet.polygon(WHITE, *ring(4, 0.97, 0))
    sheet.polygon(YELLOW, *ring(4, 0.66, 0))


def warning(sheet: Sheet) -> None:
    """White triangle, red rim: the frame of every warning."""
    sheet.polygon(RED, *ring(3, 1.1, -90, 0.25))
    sheet.polygon(WHITE, *ring(3, 0.74, -90, 0.25))


def danger(sheet: Sheet) -> None:
    """Exclamation mark in a warning triangle."""
    warning(sheet)
    sheet.polygon(BLACK, (-0.12, -0.32), (0.12, -0.32), (0.07, 0.24), (-0.07, 0.24))
    sheet.disc(0.11, BLACK, 0, 0.42)


def roadworks(sheet: Sheet) -> None:
    """A digging man in a warning triangle."""
    warning(sheet)
    sheet.disc(0.085, BLACK, 0.0, -0.18)
    sheet.stroke(BLACK, 0.13, (-0.02, -0.02), (-0.14, 0.22))
    sheet.stroke(BLACK, 0.09, (-0.14, 0.22), (0.0, 0.34), (-0.02, 0.5))
    sheet.stroke(BLACK, 0.09, (-0.14, 0.22), (-0.24, 0.5))
    sheet.stroke(BLACK, 0.05, (-0.02, -0.02), (0.08, 0.14), (-0.1, 0.2))
    sheet.stroke(BLACK, 0.04, (-0.2, 0.06), (0.24, 0.36))
    sheet.polygon(BLACK, (0.14, 0.54), (0.34, 0.3), (0.52, 0.54))


def pedestrian_crossing(sheet: Sheet) -> None:
    """A man on a zebra crossing, in a white triangle on blue."""
    sheet.box(WHITE, -0.93, -0.93, 0.93, 0.93, 0.1)
    sheet.box(BLUE, -0.88, -0.88, 0.88, 0.88, 0.08)
    sheet.polygon(WHITE, *ring(3, 0.92, -90, 0.16))
    sheet.disc(0.09, BLACK, 0.02, -0.28)
    sheet.stroke(BLACK, 0.14, (0.02, -0.12), (0.0, 0.12))
    sheet.stroke(BLACK, 0.08, (0.0, 0.12), (0.14, 0.44))
    sheet.stroke(BLACK, 0.08, (0.0, 0.12), (-0.14, 0.44))
    sheet.stroke(BLACK, 0.06, (-0.18, 0.08), (0.0, -0.1), (0.2, 0.06))
    for x in (-0.5, -0.26, 0.02, 0.3):
        sheet.polygon(BLACK, (x, 0.5), (x + 0.16, 0.5), (x + 0.2, 0.58), (x, 0.58))


def order(sheet: Sheet) -> None:
    """Blue disc: the frame of every order."""
    sheet.disc(0.98, WHITE)
    sheet.disc(0.93, BLUE)


def keep_right(sheet: Sheet) -> None:
    """Arrow down to the right on a blue disc."""
    order(sheet)
    sheet.stroke(WHITE, 0.24, (-0.45, -0.45), (0.3, 0.3))
    sheet.polygon(WHITE, (0.6, 0.6), (-0.12, 0.6), (0.08, 0.38), (0.38, 0.08), (0.6, -0.12))


def turn_left(sheet: Sheet) -> None:
    """Arrow that bends to the left on a blue disc."""
    order(sheet)
    sheet.stroke(WHITE, 0.24, (0.3, 0.62), (0.3, -0.12), (-0.3, -0.12))
    sheet.polygon(WHITE, (-0.74, -0.12), (-0.24, -0.52), (-0.24, 0.28))


def roundabout(sheet: Sheet) -> None:
    """Three arrows chasing each other on a blue disc."""
    order(sheet)
    for start in (20, 140, 260):
        sheet.arc(WHITE, 0.5, 0.17, start, start + 66)
        tip = (start + 104) * pi / 180
        base = (start + 62) * pi / 180
        sheet.polygon(
            WHITE,
            (0.5 * cos(tip), 0.5 * sin(tip)),
            (0.74 * cos(base), 0.74 * sin(base)),
            (0.26 * cos(base), 0.26 * sin(base)),
        )


SIGNS: dict[str, Callable[[Sheet], None]] = {
    "stop": stop,
    "give way": give_way,
    "no entry": no_entry,
    "speed limit 30": speed_limit("30"),
    "speed limit 50": speed_limit("50"),
    "speed limit 80": speed_limit("80"),
    "no overtaking": no_overtaking,
    "no vehicles": prohibition,
    "end of limits": end_of_limits,
    "priority road": priority_road,
    "danger": danger,
    "roadworks": roadworks,
    "pedestrian crossing": pedestrian_crossing,
    "keep right": keep_right,
    "turn left": turn_left,
    "roundabout": roundabout,
}
"""The classes by name, in label order, and how each is drawn."""
