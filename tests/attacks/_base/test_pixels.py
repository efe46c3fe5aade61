import numpy as np

from foretaste.attacks._base.pixels import CHANGED_AT_ONCE, Pixels, change, mix, portions


def test_every_image_is_changed_once_and_rounded() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2 * CHANGED_AT_ONCE // 1024 + 7, 32, 32, 1), dtype=np.uint8)
    seen: list[int] = []

    def add(pixels: Pixels, rows: slice) -> Pixels:
        seen.extend(range(rows.start, rows.stop))
        pixels += 100.6
        return pixels

    changed = change(images, add)
    assert seen == list(range(len(images)))
    np.testing.assert_array_equal(changed, np.minimum(images.astype(int) + 101, 255))


def test_large_images_come_in_smaller_portions() -> None:
    def sizes(side: int) -> list[int]:
        images = np.broadcast_to(np.uint8(0), (10, side, side, 3))
        return [part.stop - part.start for part in portions(images, 4096)]

    assert sizes(32) == [4, 4, 2]
    assert sizes(40) == [2] * 5
    assert sizes(100) == [1] * 10


def test_opacity_may_differ_by_pixel_and_by_image() -> None:
    images, picture = np.zeros((2, 1, 2, 3), np.uint8), np.full((1, 2, 3), 100, np.uint8)
    by_pixel = mix(images, picture, np.array([[[0.5], [0.1]]]))
    assert by_pixel[:, 0, :, 0].tolist() == [[50, 10], [50, 10]]
    by_image = mix(images, picture, np.array([0.0, 1.0]).reshape(2, 1, 1, 1))
    assert by_image[:, 0, 0, 0].tolist() == [0, 100]
