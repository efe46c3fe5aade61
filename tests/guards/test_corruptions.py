import numpy as np
import pytest

from foretaste.guards.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from foretaste.samples import Images


def pictures(n: int = 3, height: int = 28, width: int = 36, channels: int = 3) -> Images:
    """Smooth pictures of middling light, all different."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(6 * rows + k + c) * np.cos(5 * columns - k * c) for k in range(n) for c in range(channels)]
    stack = np.reshape(waves, (n, channels, height, width)).transpose(0, 2, 3, 1)
    return (110 + 70 * stack).astype(np.uint8)


def harm(name: str, severity: int, images: Images) -> float:
    changed = corrupt(images, name, severity, seed=0).astype(float) - images
    return float(np.sqrt((changed**2).mean()))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_harms_more_than_the_one_before(name: str) -> None:
    harms = [harm(name, severity, pictures()) for severity in range(1, SEVERITIES + 1)]
    assert 0.5 < harms[0] < 40
    assert harms == sorted(harms)
    assert harms[-1] > 1.5 * harms[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (112, 92, 1), (40, 33, 3)])
def test_any_size_and_grey_work(name: str, shape: tuple[int, int, int]) -> None:
    images = pictures(2, *shape)
    changed = corrupt(images, name, SEVERITIES, seed=1)
    assert changed.dtype == np.uint8
    assert changed.shape == images.shape
    assert corrupt(images[:0], name, 1, seed=1).shape == (0, *shape)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_becomes_of_an_image_depends_on_seed_alone(name: str) -> None:
    images = pictures(4)
    whole = corrupt(images, name, 3, seed=2)
    assert np.array_equal(whole, corrupt(images, name, 3, seed=2))
    alone = np.concatenate([corrupt(images[k : k + 1], name, 3, seed=2) for k in range(4)])
    # Convolving by FFT rounds differently with the batch: one grey level at most.
    assert np.abs(whole.astype(int) - alone).max() <= (1 if "blur" in name else 0)


@pytest.mark.parametrize(
    "name", ["gaussian-noise", "shot-noise", "impulse-noise", "glass-blur", "snow", "frost", "fog"]
)
def test_another_seed_draws_anew(name: str) -> None:
    assert not np.array_equal(corrupt(pictures(), name, 3, seed=0), corrupt(pictures(), name, 3, seed=1))


def test_noise_is_as_strong_as_it_says() -> None:
    images = np.full((1, 200, 200, 1), 128, dtype=np.uint8)
    # The deviation of 40,000 draws is known to 0.4 %; rounding to grey levels adds 1 / 12 to the variance.
    assert corrupt(images, "gaussian-noise", 2, seed=0).std() == pytest.approx(0.07 * 255, rel=0.02)
    share = np.isin(corrupt(images, "impulse-noise", 4, seed=0), [0, 255]).mean()
    assert share == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 / 40_000))


@pytest.mark.parametrize("name", ["defocus-blur", "motion-blur", "zoom-blur", "glass-blur", "elastic-transform"])
def test_moving_light_about_leaves_an_even_picture_even(name: str) -> None:
    images = np.full((2, 30, 30, 3), 77, dtype=np.uint8)
    assert np.array_equal(corrupt(images, name, 4, seed=0), images)


def test_contrast_and_pixelate_do_what_they_say() -> None:
    images = pictures(1, 40, 40)
    flat = corrupt(images, "contrast", 1, seed=0)
    assert flat.std(axis=(1, 2)) == pytest.approx(0.6 * images.std(axis=(1, 2)), rel=0.02)
    assert flat.mean(axis=(1, 2)) == pytest.approx(images.mean(axis=(1, 2)), abs=0.5)
    blocks = corrupt(images, "pixelate", 3, seed=0)
    assert np.array_equal(blocks[:, ::2, ::2], blocks[:, 1::2, 1::2])
