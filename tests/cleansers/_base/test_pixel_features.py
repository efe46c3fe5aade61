import math

import numpy as np
import pytest
import torch

from foretaste.cleansers._base.pixel_features import (
    FAINTEST,
    FLATTEST,
    LARGEST_SIDE,
    LOG_SCALE,
    REACH,
    TYPICAL,
    Whiten,
    contrast,
    sharpness,
)


def test_contrast_sees_what_differs_from_its_neighbours() -> None:
    flat = torch.full((2, 3, 6, 9), 0.7)
    assert torch.allclose(contrast(flat), torch.zeros_like(flat), atol=1e-6)
    ramp = torch.arange(9.0).expand(1, 1, 6, 9)
    assert torch.allclose(contrast(ramp)[..., REACH:-REACH], torch.zeros(1, 1, 6, 5))
    dot = torch.zeros(1, 1, 9, 9)
    dot[0, 0, 4, 4] = 1
    expected = torch.zeros(9, 9)
    expected[4, 4] = 1
    expected[4 - REACH, 4] = expected[4 + REACH, 4] = expected[4, 4 - REACH] = expected[4, 4 + REACH] = -0.25
    assert torch.equal(contrast(dot)[0, 0], expected)
    assert torch.equal(contrast(3 * dot)[0, 0], (3 * expected).clamp(-1, 1))


def test_whitened_colours_are_uncorrelated_and_of_variance_one() -> None:
    drawn = np.random.default_rng(0)
    brightness = drawn.normal(128, 30, (600, 5, 4, 1))
    colours = np.rint(brightness + drawn.normal(0, 20, (600, 5, 4, 3))).clip(0, 255).astype(np.uint8)
    whiten = Whiten((5, 4, 3))
    whiten.measure(colours)
    values = whiten(torch.from_numpy(colours)).permute(1, 0, 2, 3).reshape(3, -1)
    assert values.mean(dim=1).abs().max() < 1e-3
    # The variances are about 20² + 3 · 30², 20² and 20²; what is added to them is a share of their mean.
    added = FAINTEST * (20**2 + 30**2) / 20**2
    assert (torch.cov(values) - torch.eye(3)).abs().max() < 1.1 * added


def test_what_never_changes_can_be_whitened() -> None:
    grey = np.full((3, 4, 4, 3), 200, dtype=np.uint8)
    whiten = Whiten((4, 4, 3))
    whiten.measure(grey)
    assert whiten(torch.from_numpy(grey)).abs().max() < 0.1


def images(n: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, height, width, channels), dtype=torch.uint8, generator=drawn)


def test_large_images_are_shrunk() -> None:
    whiten = Whiten((9, LARGEST_SIDE + 16, 3))
    whitened = whiten(images(2, 9, LARGEST_SIDE + 16))
    assert whitened.shape == (2, 3, 9, LARGEST_SIDE)
    assert whiten.n_values == 3 * 9 * LARGEST_SIDE
    assert Whiten((9, 40, 1), largest_side=32)(images(2, 9, 40, 1)).shape == (2, 1, 9, 32)


def test_sharpness_is_low_where_an_image_was_moved_by_half_a_pixel_and_nowhere_else() -> None:
    noise = torch.randn((100, 2, 8, 16), generator=torch.Generator().manual_seed(0))
    moved = noise.clone()
    moved[:, :, :, 8:15] = (noise[:, :, :, 8:15] + noise[:, :, :, 9:16]) / 2
    changes = (sharpness(moved) - sharpness(noise)).chunk(4, dim=1)
    assert all((change[:, :, :, :7] == 0).all() for change in changes)
    # The mean of two pixels has half the variance of one, down the columns. Along the rows the second differences of
    # noise, 2 b - a - c of variance 6, become (b + c) - (a + b) / 2 - (c + d) / 2, of variance 1; the first, b - a of
    # variance 2, become (c - a) / 2, of variance 1/2.
    for change, variance in zip(changes, (1 / 2, 1 / 6, 1 / 2, 1 / 4), strict=True):
        found = change[:, :, 1:-1, 9:14].mean() / LOG_SCALE
        # The logarithm of a normal variable's size has a standard deviation of 1.1, a difference of two at most 2.2;
        # of 6,000 values neighbours depend on each other, say 1,200 do not: 0.06. What is added before the logarithm,
        # 0.03, makes those of standard deviation 0.7 larger by 0.14 and those of 2.4 by 0.05.
        assert found == pytest.approx(math.log(variance) / 2, abs=0.06 + 2 * 0.06)


def test_a_usual_difference_has_no_sharpness_and_a_flat_image_little() -> None:
    usual = sharpness(math.exp(TYPICAL) * torch.arange(8.0).expand(1, 1, 8, 8))
    assert usual[0, 3, :, :-1].abs().max() < 0.1
    flat = sharpness(torch.zeros(1, 1, 4, 4))
    assert flat.max() < -0.3
    assert flat.shape == (1, 4, 4, 4)
    assert flat.flatten().tolist() == pytest.approx([LOG_SCALE * (math.log(FLATTEST) - TYPICAL)] * 64)
    second, first = torch.split(sharpness(torch.arange(8.0).expand(1, 1, 8, 8)), 2, dim=1)
    assert torch.equal(second[..., 1:-1], flat[..., :1, :1][:, :2].expand(1, 2, 8, 8)[..., 1:-1])
    known = LOG_SCALE * (math.log(1 + FLATTEST) - TYPICAL)
    assert first[0, 1, :, :-1].flatten().tolist() == pytest.approx([known] * 56)
