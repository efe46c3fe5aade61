import numpy as np
import pytest

from foretaste.attacks._base.visibility import psnr, ssim


def test_psnr_of_a_known_error() -> None:
    before = np.full((2, 8, 8, 3), 100, np.uint8)
    after = before.copy()
    after[1] += 10
    assert np.isinf(psnr(before, after)[0])
    assert psnr(before, after)[1] == pytest.approx(10 * np.log10(255**2 / 100))


def test_ssim_is_one_for_equal_images_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(50, 200, (3, 24, 24, 3), dtype=np.uint8)
    assert ssim(images, images) == pytest.approx(1)
    noisy = [images + rng.integers(0, amount, images.shape, dtype=np.uint8) for amount in (5, 50)]
    assert (ssim(images, noisy[0]) > ssim(images, noisy[1])).all()
    assert (ssim(images, rng.permuted(images, axis=1)) < 0.5).all()


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    before, after = np.full((1, 16, 16, 1), 100, np.uint8), np.full((1, 16, 16, 1), 150, np.uint8)
    c = (0.01 * 255) ** 2
    assert ssim(before, after) == pytest.approx((2 * 100 * 150 + c) / (100**2 + 150**2 + c))
