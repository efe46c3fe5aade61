"""One image: decoded from bytes that nobody vouches for, or encoded without loss."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", *(["AVIF"] if features.check("avif") else []))
"""The only decoders that input may reach; AVIF where Pillow was built with it."""
SUFFIXES = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".bmp",
        ".gif",
        ".webp",
        ".avif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ]
)
"""File names that end so are images."""
MAX_PIXELS = 64 * 2**20
"""An image that claims more is a decompression bomb; checked before any pixel is decoded."""

_GREY = frozenset(["1", "L", "LA", "La"])
_DEEP_GREY = frozenset(["I;16", "I;16B", "I;16L", "I;16N"])


class BadImageError(Exception):
    """Why an image cannot be used: the end of a sentence that starts with its name."""


def decode_image(data: bytes | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode an image file; animations and multi-page files give their first picture.

    Args:
        data: the encoded bytes, or the file that holds them.
        size: (height, width) in pixels to resize to (bilinear, anti-aliased), or None.

    Returns:
        ``uint8 (H, W)`` for a grey image (16 bits are reduced to 8), else ``uint8 (H, W, 3)``, RGB without alpha.

    Raises:
        BadImageError: it is no image of a known format, is damaged, or has more than ``MAX_PIXELS`` pixels.
    """
    try:
        with Image.open(BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError(f"has {image.width} x {image.height} pixels, more than the {MAX_PIXELS} allowed")
            return pixels_of(image, size)
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image, or is damaged") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"has more than the {MAX_PIXELS} pixels allowed") from error
    except OSError as error:
        raise BadImageError(f"cannot be decoded: {error.strerror or error}") from error
    except (
        Warning,
        ArithmeticError,
        LookupError,
        RuntimeError,
        SyntaxError,
        TypeError,
        ValueError,
        EOFError,
        struct.error,
    ) as error:
        # Pillow's parsers raise whatever they stumble on in a damaged file; a warning if the host makes it an error.
        raise BadImageError(f"cannot be decoded: {error}") from error


def pixels_of(image: Image.Image, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return the pixels of an opened image as ``decode_image`` does, with the same arguments.

    Raises:
        BadImageError: it has floating-point or 32-bit pixels.
    """
    plain = _plain(image)
    if size is not None and plain.size != size[::-1]:
        plain = plain.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(plain)


def _plain(image: Image.Image) -> Image.Image:
    """Return the image in mode L or RGB."""
    if image.mode in _DEEP_GREY:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("F", "I"):
        # What is black and what is white, nothing says.
        raise BadImageError(f"has {'floating-point' if image.mode == 'F' else '32-bit'} pixels")
    mode = "L" if image.mode in _GREY else "RGB"
    if image.mode == mode:
        image.load()
        return image
    return image.convert(mode)


def resize_image(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a decoded ``(H, W, C)`` image to ``size``, (height, width), as ``decode_image`` does."""
    resized = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).resize(
        size[::-1], Image.Resampling.BILINEAR
    )
    return np.asarray(resized).reshape(*size, pixels.shape[2])


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an ``(H, W, C)`` image as PNG, without loss."""
    buffer = BytesIO()
    # Level 1: on small pictures the rest of zlib's effort buys 2 % of size for twice the time.
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
