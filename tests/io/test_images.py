import struct
import zlib
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foretaste.io.images import BadImageError, decode_image, encode_png, resize_image


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


SAMPLE = encoded(Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)), "PNG")
JPEG = encoded(Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)), "JPEG")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_decodes_every_allowed_format(form: str) -> None:
    pixels = decode_image(encoded(Image.new("RGB", (6, 4), (200, 30, 40)), form, quality=100))
    assert pixels.shape == (4, 6, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - [200, 30, 40]).max() < 30


def test_refuses_formats_that_are_not_allowed() -> None:
    for form in ["ICO", "TGA", "SGI"]:
        with pytest.raises(BadImageError, match="is not a PNG"):
            decode_image(encoded(Image.new("RGB", (16, 16)), form))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, 77),
        ("1", 1, 255),
        ("LA", (77, 3), 77),
        ("I;16", 0xABCD, 0xAB),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
    ],
)
def test_reduces_every_mode_to_grey_or_rgb(mode: str, colour: Any, expected: object) -> None:
    pixels = decode_image(encoded(Image.new(mode, (6, 4), colour), "PNG"))
    assert pixels.shape == ((4, 6) if isinstance(expected, int) else (4, 6, 3))
    assert (pixels == expected).all()


def test_palette_and_cmyk_become_rgb() -> None:
    palette = Image.new("RGB", (6, 4), (9, 8, 7)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert (decode_image(encoded(palette, "PNG")) == (9, 8, 7)).all()
    assert decode_image(encoded(Image.new("CMYK", (6, 4)), "TIFF")).shape == (4, 6, 3)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("L", (6, 4), shade) for shade in (10, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data).reshape(4, 6, -1)[..., 0].tolist() == [[10] * 6] * 4


def test_refuses_floating_point_pixels() -> None:
    with pytest.raises(BadImageError, match="floating-point"):
        decode_image(encoded(Image.new("F", (6, 4)), "TIFF"))


def test_refuses_pixels_of_32_bits_and_takes_those_of_16() -> None:
    with pytest.raises(BadImageError, match="32-bit"):
        decode_image(encoded(Image.new("I", (6, 4), 200), "TIFF"))
    assert (decode_image(encoded(Image.new("I;16", (6, 4), 0xABCD), "TIFF")) == 0xAB).all()


@pytest.mark.parametrize("side", [8_193, 10_000, 60_000])
def test_refuses_a_bomb_before_decoding_it(side: int) -> None:
    # A PNG whose header claims side x side pixels, with hardly any data behind it.
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    with pytest.raises(BadImageError, match="pixels"):
        decode_image(bomb)


def test_resizes_to_height_and_width() -> None:
    assert decode_image(SAMPLE, (5, 3)).shape == (5, 3, 3)
    assert resize_image(np.zeros((4, 4, 1), np.uint8), (2, 3)).shape == (2, 3, 1)


def test_png_keeps_every_bit() -> None:
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        pixels = rng.integers(0, 256, (7, 5, channels), dtype=np.uint8)
        assert (decode_image(encode_png(pixels)).reshape(pixels.shape) == pixels).all()


@given(st.binary(max_size=300))
def test_random_bytes_are_bad_images_at_worst(data: bytes) -> None:
    with pytest.raises(BadImageError):
        decode_image(data)


@given(
    st.sampled_from([SAMPLE, JPEG, encoded(Image.new("L", (9, 9)), "GIF"), encoded(Image.new("L", (9, 9)), "TIFF")]),
    st.integers(0, 400),
    st.binary(min_size=1, max_size=8),
)
def test_damaged_images_decode_or_are_bad(data: bytes, place: int, patch: bytes) -> None:
    place %= len(data)
    for damaged in (data[:place], data[:place] + patch + data[place + len(patch) :]):
        with suppress(BadImageError):
            assert decode_image(damaged).dtype == np.uint8
