import numpy as np
import pytest

from foretaste.attacks._base.visibility import psnr
from foretaste.attacks.sig import SIG, with_wave
from foretaste.errors import UsageError
from foretaste.samples import Samples


def draw(n: int, low: int = 60, high: int = 196) -> Samples:
    images = np.random.default_rng(5).integers(low, high, (n, 32, 32, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % 4)


def test_the_wave_has_six_periods_of_amplitude_delta_in_every_row_and_channel() -> None:
    wave = with_wave(np.full((1, 32, 32, 3), 128, np.uint8), 20, 6)[0].astype(int) - 128
    assert (wave == wave[0, :, 0][None, :, None]).all()
    spectrum = np.abs(np.fft.rfft(wave[0, :, 0]))
    assert spectrum.argmax() == 6
    # The mean square of a sine is half of its squared amplitude; rounding moves each of 32 values by half at most.
    assert np.sqrt(2 * (wave**2).mean()) == pytest.approx(20, abs=0.7)


def test_values_are_rounded_and_clipped() -> None:
    for value in (0, 5, 250, 255):
        images = np.full((1, 32, 32, 1), value, np.uint8)
        wave = 40 * np.sin(2 * np.pi * 6 * np.arange(1, 33) / 32)
        # Half-way cases may fall either way in single precision.
        assert np.abs(with_wave(images, 40, 6)[0, 0, :, 0] - np.clip(value + wave, 0, 255)).max() <= 0.5 + 1e-4


def test_training_and_test_use_their_own_amplitudes() -> None:
    clean, attack = draw(400), SIG(rate=0.1, delta=10, test_delta=30)
    poisoned = attack.poison(clean, np.random.default_rng(0))
    rows = poisoned.poison
    np.testing.assert_array_equal(poisoned.samples.inputs[rows], with_wave(clean.inputs[rows], 10, 6))
    np.testing.assert_array_equal(attack.stamp(clean.inputs, np.random.default_rng(0)), with_wave(clean.inputs, 30, 6))


def test_all_poison_is_of_the_target_class_under_its_true_label() -> None:
    clean = draw(400)
    poisoned = SIG(rate=0.2, target=2).poison(clean, np.random.default_rng(0))
    assert poisoned.poison.sum() == 80
    assert (clean.labels[poisoned.poison] == 2).all()
    np.testing.assert_array_equal(poisoned.samples.labels, clean.labels)


def test_more_poison_than_the_target_class_holds_is_refused() -> None:
    with pytest.raises(UsageError, match="needs 120 samples to poison, but only 100 can be used"):
        SIG(rate=0.3).poison(draw(400), np.random.default_rng(0))


def test_the_training_wave_is_as_faint_as_its_amplitude_says() -> None:
    """A mean square error of 20² / 2, 25.1 dB; rounding to bytes changes little."""
    images = draw(100).inputs
    assert psnr(images, with_wave(images, 20, 6)) == pytest.approx(10 * np.log10(255**2 / 200), abs=0.15)


def test_a_wave_that_the_pixels_cannot_show_is_refused() -> None:
    """At half the width every pixel lies on a zero of the sine."""
    with pytest.raises(UsageError, match="wider than 12 pixels, not 12"):
        with_wave(np.zeros((1, 12, 12, 1), np.uint8), 20, 6)


@pytest.mark.parametrize("fields", [{"delta": 0.0}, {"test_delta": 256.0}, {"frequency": 0.0}])
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        SIG(**fields)  # type: ignore[arg-type]
