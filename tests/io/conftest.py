from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foretaste.samples import Samples

Encode = Callable[..., bytes]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a cache of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FORETASTE_CACHE", str(folder))
    return folder


@pytest.fixture
def encode() -> Encode:
    """Return a function that encodes a picture of one colour."""

    def encode(mode: str = "RGB", colour: Any = 7, size: tuple[int, int] = (6, 4), form: str = "PNG") -> bytes:
        buffer = BytesIO()
        Image.new(mode, size, colour).save(buffer, form)
        return buffer.getvalue()

    return encode


@pytest.fixture
def tree(tmp_path: Path, encode: Encode) -> Path:
    """Return a folder of two classes with three 6 x 4 images each."""
    folder = tmp_path / "photos"
    for label, name in enumerate(["cat", "dog"]):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            (folder / name / f"{i}.png").write_bytes(encode(colour=(label, i, 9)))
    return folder


@pytest.fixture
def pictures() -> Samples:
    """Return 300 random colour images with ids of their own."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 5, 7, 3), dtype=np.uint8)
    return Samples.from_arrays(images, rng.integers(0, 3, 300), ["a", "b", "ü"], [f"x/{i}.png" for i in range(300)])


@pytest.fixture
def same() -> Callable[[Samples, Samples], None]:
    """Return a function that asserts that two sets are the same bit for bit."""

    def same(one: Samples, other: Samples) -> None:
        assert one.inputs.dtype == other.inputs.dtype
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.ids.tolist() == other.ids.tolist()
        assert one.classes == other.classes

    return same
