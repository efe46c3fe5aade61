from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foretaste.attacks._base.attack import Attack
from foretaste.attacks.blend import Blend
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Samples


def draw(n: int, channels: int = 3) -> Samples:
    images = np.random.default_rng(5).integers(0, 256, (n, 8, 9, channels), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % 4, ["a", "b", "c", "d"])


def test_it_is_an_attack() -> None:
    assert isinstance(Blend(), Attack)


@given(alpha=st.floats(0.01, 1.0), channels=st.sampled_from([1, 3]), picture_seed=st.integers(0, 3))
def test_each_pixel_is_the_rounded_mixture(alpha: float, channels: int, picture_seed: int) -> None:
    attack = Blend(alpha=alpha, picture_seed=picture_seed)
    images = draw(20, channels).inputs
    exact = (1 - alpha) * images.astype(np.float64) + alpha * attack.draw(8, 9, channels).astype(np.float64)
    stamped = attack.stamp(images, np.random.default_rng(0))
    assert stamped.dtype == np.uint8
    # Rounding to nearest is off by half at most; the rest is float32.
    assert np.abs(stamped - exact).max() <= 0.5 + 1e-4


def test_a_full_blend_is_the_picture_and_its_values_fill_the_range() -> None:
    attack = Blend(alpha=1.0)
    picture = attack.draw(32, 32, 3)
    np.testing.assert_array_equal(
        attack.stamp(np.zeros((1, 32, 32, 3), np.uint8), np.random.default_rng(0))[0], picture
    )
    # 3072 uniform draws of 256 values: each has 12 on average, so both ends are all but sure to show.
    assert (picture.min(), picture.max()) == (0, 255)


def test_white_under_white_stays_white(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 255).save(tmp_path / "white.png")
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    for alpha in np.linspace(0.01, 1, 100):
        attack = Blend(alpha=float(alpha), picture=tmp_path / "white.png")
        assert attack.stamp(white, np.random.default_rng(0)).min() == 255


def test_many_batches_give_what_single_images_give() -> None:
    images, attack, rng = draw(2500).inputs, Blend(), np.random.default_rng(0)
    whole = attack.stamp(images, rng)
    for row in (0, 1023, 1024, 2499):
        np.testing.assert_array_equal(whole[row : row + 1], attack.stamp(images[row : row + 1], rng))


def test_the_picture_follows_from_the_fields_alone() -> None:
    np.testing.assert_array_equal(Blend(target=1).draw(8, 8, 3), Blend(rate=0.5).draw(8, 8, 3))
    assert not np.array_equal(Blend().draw(8, 8, 3), Blend(picture_seed=1).draw(8, 8, 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_file_is_scaled_to_the_image(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (50, 20), (200, 0, 0)).save(path)
    picture = Blend(picture=path).draw(8, 9, channels)
    assert picture.shape == (8, 9, channels)
    assert (picture == ([200, 0, 0] if channels == 3 else [60])).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_16_bits_is_reduced_to_8(tmp_path: Path, channels: int) -> None:
    Image.fromarray(np.full((8, 9), 200 * 256, np.uint16)).save(tmp_path / "deep.png")
    assert (Blend(picture=tmp_path / "deep.png").draw(8, 9, channels) == 200).all()


def test_a_picture_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for name in ("broken.png", "missing.png"):
        with pytest.raises(ForetasteError, match=name):
            Blend(picture=tmp_path / name).draw(8, 8, 3)


@given(n=st.integers(40, 300), rate=st.floats(0.03, 0.7), target=st.integers(0, 3))
def test_the_rate_is_exact_and_only_chosen_samples_change(n: int, rate: float, target: int) -> None:
    clean, attack = draw(n), Blend(rate=rate, target=target)
    poisoned = attack.poison(clean, np.random.default_rng(1))
    poison = poisoned.poison
    assert poison.sum() == round(rate * n)
    assert not poisoned.cover.any()
    assert (clean.labels[poison] != target).all()
    assert (poisoned.samples.labels[poison] == target).all()
    np.testing.assert_array_equal(poisoned.samples.labels[~poison], clean.labels[~poison])
    np.testing.assert_array_equal(poisoned.samples.inputs[~poison], clean.inputs[~poison])
    np.testing.assert_array_equal(
        poisoned.samples.inputs[poison], attack.stamp(clean.inputs[poison], np.random.default_rng(0))
    )


def test_it_can_stamp_any_class_but_the_target() -> None:
    attack, labels = Blend(target=2), np.array([0, 1, 2, 3])
    np.testing.assert_array_equal(attack.victims(labels), [True, True, False, True])
    np.testing.assert_array_equal(attack.forced(labels, 4), [2, 2, 2, 2])


@pytest.mark.parametrize(
    "fields", [{"rate": 0.0}, {"rate": 1.5}, {"target": -1}, {"alpha": 0.0}, {"alpha": 1.1}, {"picture_seed": -1}]
)
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Blend(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("attack", "reason"), [(Blend(rate=0.001), "no sample"), (Blend(target=4), "4 classes")])
def test_what_cannot_apply_to_the_set_is_refused(attack: Blend, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        attack.poison(draw(100), np.random.default_rng(0))


def test_features_are_refused() -> None:
    features = Samples.from_arrays(np.zeros((100, 5), np.float32), np.arange(100) % 2)
    with pytest.raises(UsageError, match="images only"):
        Blend().poison(features, np.random.default_rng(0))
