"""Pictures that triggers are made of: read from a file or drawn from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from foretaste.errors import ForetasteError
from foretaste.io.images import BadImageError, decode_image
from foretaste.samples import Images


def noise(seed: int, height: int, width: int, channels: int) -> Images:
    """Return uniform random noise as ``uint8 (height, width, channels)``: the same for the same seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def read_picture(path: Path, height: int, width: int, channels: int) -> Images:
    """Return an image file scaled to ``uint8 (height, width, channels)``, in grey if there is one channel.

    Raises:
        ForetasteError: the file cannot be read.
    """
    try:
        picture = Image.fromarray(decode_image(path))
    except BadImageError as error:
        raise ForetasteError(f"the picture {path} {error}") from error
    scaled = picture.convert("RGB" if channels == 3 else "L").resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(scaled).reshape(height, width, channels)


def picture_or_noise(path: Path | None, seed: int, height: int, width: int, channels: int) -> Images:
    """Return the picture in a file, or noise from a seed where none is given: ``uint8 (height, width, channels)``.

    Raises:
        ForetasteError: the file cannot be read.
    """
    return noise(seed, height, width, channels) if path is None else read_picture(path, height, width, channels)


def in_channels(picture: Images, channels: int) -> Images:
    """Return an RGB picture ``uint8 (H, W, 3)`` with as many channels as asked for: itself, or its luminance."""
    return picture if channels == 3 else np.asarray(Image.fromarray(picture).convert("L"))[..., None]
