import numpy as np

from foretaste.attacks._base.patch import paste


def test_the_patch_goes_where_it_is_told_and_nothing_else_changes() -> None:
    images = np.zeros((2, 4, 5, 3), np.uint8)
    patch = np.arange(1, 13, dtype=np.uint8).reshape(2, 2, 3)
    pasted = paste(images, patch, np.array([0, 2]), np.array([3, 1]))
    np.testing.assert_array_equal(pasted[0, 0:2, 3:5], patch)
    np.testing.assert_array_equal(pasted[1, 2:4, 1:3], patch)
    assert pasted.sum() == 2 * patch.sum()
    assert not images.any()


def test_one_place_serves_all_images_and_one_channel_all_channels() -> None:
    pasted = paste(np.zeros((3, 4, 4, 3), np.uint8), np.full((1, 2, 1), 9, np.uint8), 3, 2)
    assert (pasted[:, 3, 2:] == 9).all()
    assert pasted.sum() == 3 * 2 * 3 * 9
