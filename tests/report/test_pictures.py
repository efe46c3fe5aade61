import base64
import io

import numpy as np
import pytest
from PIL import Image

from foretaste.report.pictures import data_uri


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_keep_every_pixel(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 24, channels), dtype=np.uint8)
    uri = data_uri(image)
    assert uri.startswith("data:image/png;base64,")
    np.testing.assert_array_equal(np.asarray(decode(uri)).reshape(image.shape), image)


@pytest.mark.parametrize("side", [3, 60, 400])
def test_transparency_is_kept(side: int) -> None:
    picture = decode(data_uri(np.zeros((side, side, 4), dtype=np.uint8)))
    assert picture.mode == "RGBA"
    assert max(picture.size) <= 96


@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_shrink(channels: int) -> None:
    picture = decode(data_uri(np.zeros((200, 400, channels), dtype=np.uint8)))
    assert picture.size == (96, 48)
    assert picture.format == "JPEG"
