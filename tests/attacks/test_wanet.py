import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from foretaste.attacks._base.visibility import psnr, ssim
from foretaste.attacks.wanet import WaNet, warp
from foretaste.errors import UsageError
from foretaste.io import draw_signs
from foretaste.samples import Samples


def identity(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.stack([x, y], axis=-1).astype(np.float32)


def draw(n: int = 400) -> Samples:
    images = np.random.default_rng(5).integers(0, 256, (n, 20, 16, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % 4)


def test_the_field_moves_pixels_by_a_quarter_of_a_pixel_or_so_and_is_smooth() -> None:
    """The mean magnitude is 1 on the coarse grid; half of the strength of 0.5, in pixels, is 0.25."""
    move = (WaNet().field(32, 32) - identity(32, 32)) * 31 / 2
    inner = move[2:-2, 2:-2]
    assert 0.15 < np.abs(inner).mean() < 0.4
    assert np.abs(np.diff(inner, axis=0)).max() < 0.2


def test_the_field_stays_inside_and_its_corners_are_the_coarse_ones() -> None:
    attack = WaNet(strength=4.0, grid=3)
    field = attack.field(24, 30)
    assert np.abs(field).max() <= 1
    coarse = np.random.default_rng(0).uniform(-1, 1, (2, 3, 3))
    coarse /= np.abs(coarse).mean()
    expected = np.clip(np.array([-1, -1]) + 4 * coarse[:, 0, 0] / [30, 24], -1, 1)
    np.testing.assert_allclose(field[0, 0], expected, atol=1e-6)


def test_a_warp_by_nothing_changes_nothing() -> None:
    images = draw(5).inputs
    np.testing.assert_array_equal(warp(images, identity(20, 16)), images)


def test_the_warp_interpolates_bilinearly_at_the_places_of_the_field() -> None:
    images, attack = draw(3).inputs, WaNet(strength=3.0)
    field = attack.field(20, 16).astype(np.float64)
    places = np.stack([(field[..., 1] + 1) * 19 / 2, (field[..., 0] + 1) * 15 / 2])
    warped = attack.stamp(images, np.random.default_rng(0))
    for image, result in zip(images, warped, strict=True):
        for channel in range(3):
            exact = map_coordinates(image[..., channel].astype(np.float64), places, order=1, mode="nearest")
            # Rounding is off by half at most; the rest is single precision of places and pixels.
            assert np.abs(result[..., channel] - exact).max() < 0.5 + 0.01


def test_poison_carries_the_field_and_cover_the_field_with_noise_of_its_own() -> None:
    clean, attack = draw(), WaNet(rate=0.1, cover_rate=0.2)
    poisoned = attack.poison(clean, np.random.default_rng(1))
    images, poison, cover = poisoned.samples.inputs, poisoned.poison, poisoned.cover
    stamped = attack.stamp(clean.inputs, np.random.default_rng(9))
    np.testing.assert_array_equal(images[poison], stamped[poison])
    assert (images[cover] != stamped[cover]).any(axis=(1, 2, 3)).all()

    same = np.repeat(clean.inputs[:1], 2, axis=0)
    first, second = attack.disguise(same, np.random.default_rng(0))
    assert not np.array_equal(first, second)


def test_noise_moves_a_pixel_by_half_a_pixel_at_most() -> None:
    """On a ramp of 8 per pixel, half a pixel of noise is a difference of 4, and rounding adds one half twice."""
    ramp = np.broadcast_to(np.arange(16, dtype=np.uint8)[None, None, :, None] * 8, (1, 16, 16, 1))
    plain = warp(ramp, identity(16, 16)).astype(int)
    noisy = warp(ramp, identity(16, 16), np.random.default_rng(0)).astype(int)
    assert 2 <= np.abs(noisy - plain).max() <= 5


def test_the_warp_can_hardly_be_seen() -> None:
    images = draw_signs(64).inputs
    stamped = WaNet().stamp(images, np.random.default_rng(0))
    assert ssim(images, stamped).mean() > 0.92
    assert psnr(images, stamped).mean() > 28


def test_another_seed_is_another_field() -> None:
    assert not np.array_equal(WaNet().field(16, 16), WaNet(field_seed=1).field(16, 16))


@pytest.mark.parametrize(
    "fields", [{"grid": 1}, {"grid": 1001}, {"strength": 0.0}, {"rescale": 1.5}, {"field_seed": -1}]
)
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        WaNet(**fields)  # type: ignore[arg-type]
