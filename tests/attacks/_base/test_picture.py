from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foretaste.attacks._base.picture import in_channels, noise, read_picture
from foretaste.errors import ForetasteError


def test_noise_is_the_same_for_the_same_seed() -> None:
    np.testing.assert_array_equal(noise(3, 4, 5, 3), noise(3, 4, 5, 3))
    assert not np.array_equal(noise(3, 4, 5, 3), noise(4, 4, 5, 3))


def test_a_picture_in_grey_is_its_luminance() -> None:
    red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
    assert in_channels(red, 3) is red
    assert in_channels(red, 1).shape == (2, 2, 1)
    assert np.unique(in_channels(red, 1)).tolist() == [60]


def test_files_are_scaled_and_broken_ones_named(tmp_path: Path) -> None:
    Image.new("L", (7, 3), 9).save(tmp_path / "grey.png")
    assert np.unique(read_picture(tmp_path / "grey.png", 5, 6, 3)).tolist() == [9]
    with pytest.raises(ForetasteError, match="missing"):
        read_picture(tmp_path / "missing", 5, 6, 3)
