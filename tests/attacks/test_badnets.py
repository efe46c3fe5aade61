import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.attacks._base.attack import Attack
from foretaste.attacks.badnets import BadNets, Place, with_patch
from foretaste.errors import UsageError
from foretaste.samples import Images, Samples


def draw(n: int, side: int = 8, channels: int = 3, n_classes: int = 4) -> Samples:
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (n, side, side, channels), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % n_classes, [f"class {k}" for k in range(n_classes)])


def cornered(images: Images, size: float) -> Images:
    return with_patch(images, size, "corner", np.random.default_rng(0))


def test_it_is_an_attack() -> None:
    assert isinstance(BadNets(), Attack)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_patch_is_the_three_pixel_grid_in_the_corner_and_nothing_else_changes(channels: int) -> None:
    images = draw(10, 32, channels).inputs
    stamped = BadNets().stamp(images, np.random.default_rng(0))
    grid = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=np.uint8)
    for channel in range(channels):
        for image in stamped:
            np.testing.assert_array_equal(image[29:, 29:, channel], grid)
    rest = np.ones((32, 32), dtype=bool)
    rest[29:, 29:] = False
    np.testing.assert_array_equal(stamped[:, rest], images[:, rest])
    assert stamped.dtype == np.uint8


@pytest.mark.parametrize(("shape", "side"), [((28, 28), 3), ((64, 64), 6), ((224, 100), 10), ((4, 4), 1)])
def test_the_patch_grows_with_the_shorter_side(shape: tuple[int, int], side: int) -> None:
    grey = np.full((1, *shape, 1), 128, dtype=np.uint8)
    rows, columns = np.nonzero(cornered(grey, 0.1)[0, :, :, 0] != 128)
    assert (rows.min(), rows.max()) == (shape[0] - side, shape[0] - 1)
    assert (columns.min(), columns.max()) == (shape[1] - side, shape[1] - 1)
    assert len(rows) == side**2


def test_a_larger_patch_repeats_the_pixels_of_the_grid() -> None:
    grey = np.full((1, 60, 60, 1), 128, dtype=np.uint8)
    large = cornered(grey, 0.1)[0, 54:, 54:, 0]
    np.testing.assert_array_equal(large, np.kron(cornered(grey, 0.05)[0, 57:, 57:, 0], np.ones((2, 2), np.uint8)))


def check_poison(clean: Samples, attack: BadNets, before: Images) -> None:
    poisoned = attack.poison(clean, np.random.default_rng(1))
    assert poisoned.poison.sum() == round(attack.rate * len(clean))
    assert not poisoned.cover.any()
    assert (clean.labels[poisoned.poison] != attack.target).all()
    assert (poisoned.samples.labels[poisoned.poison] == attack.target).all()
    np.testing.assert_array_equal(poisoned.samples.labels[~poisoned.poison], clean.labels[~poisoned.poison])
    np.testing.assert_array_equal(poisoned.samples.inputs[~poisoned.poison], before[~poisoned.poison])
    np.testing.assert_array_equal(
        poisoned.samples.inputs[poisoned.poison], cornered(before[poisoned.poison], attack.size)
    )
    np.testing.assert_array_equal(poisoned.original_labels, clean.labels)
    np.testing.assert_array_equal(clean.inputs, before)


@given(n=st.integers(40, 400), rate=st.floats(0.02, 0.7), target=st.integers(0, 3))
def test_the_rate_is_exact_and_only_chosen_samples_change(n: int, rate: float, target: int) -> None:
    clean = draw(n)
    check_poison(clean, BadNets(rate=rate, target=target), clean.inputs.copy())


def test_the_usual_rates_of_cifar_give_the_usual_counts() -> None:
    labels = np.arange(50_000) % 10
    clean = Samples.from_arrays(np.zeros((50_000, 2, 2, 1), np.uint8), labels)
    for rate, count in [(0.003, 150), (0.01, 500), (0.05, 2500)]:
        assert BadNets(rate=rate).poison(clean, np.random.default_rng(0)).poison.sum() == count


def test_it_can_stamp_any_class_but_the_target() -> None:
    attack, labels = BadNets(target=2), np.array([0, 1, 2, 3])
    np.testing.assert_array_equal(attack.victims(labels), [True, True, False, True])
    np.testing.assert_array_equal(attack.forced(labels, 4), [2, 2, 2, 2])


@pytest.mark.parametrize(
    "fields", [{"rate": 0.0}, {"rate": 1.5}, {"rate": float("nan")}, {"target": -1}, {"size": 0.0}, {"size": 1.01}]
)
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        BadNets(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (BadNets(rate=0.001), "no sample"),
        (BadNets(rate=0.9), "only 75"),
        (BadNets(target=4), "4 classes"),
    ],
)
def test_what_cannot_apply_to_the_set_is_refused(attack: BadNets, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        attack.poison(draw(100), np.random.default_rng(0))


def test_features_are_refused() -> None:
    features = Samples.from_arrays(np.zeros((100, 5), np.float32), np.arange(100) % 2)
    with pytest.raises(UsageError, match="images only"):
        BadNets().poison(features, np.random.default_rng(0))


@given(side=st.integers(4, 20), width=st.integers(4, 20), size=st.floats(0.1, 1.0))
def test_at_random_places_the_whole_patch_lies_inside_the_image(side: int, width: int, size: float) -> None:
    grey = np.full((30, side, width, 3), 128, dtype=np.uint8)
    stamped = BadNets(size=size, place="random").stamp(grey, np.random.default_rng(0))
    patch = cornered(grey[:1], size)[0]
    edge = max(1, round(size * min(side, width)))
    for image in stamped:
        rows, columns = np.nonzero((image != 128).any(axis=2))
        top, left = rows.min(), columns.min()
        np.testing.assert_array_equal(image[top : top + edge, left : left + edge], patch[-edge:, -edge:])
        assert len(rows) == edge**2


def test_random_places_cover_the_image_evenly() -> None:
    grey = np.full((9000, 5, 5, 1), 128, dtype=np.uint8)
    stamped = BadNets(size=0.6, place="random").stamp(grey, np.random.default_rng(0))
    rows = (stamped != 128).any(axis=(2, 3)).argmax(axis=1)
    columns = (stamped != 128).any(axis=(1, 3)).argmax(axis=1)
    counts = np.bincount(3 * rows + columns, minlength=9)
    # Binomial of 9,000 draws at 1/9: mean 1,000, standard deviation 30.
    assert np.abs(counts - 1000).max() < 5 * 30


def test_random_places_are_drawn_again_for_each_seed() -> None:
    images, attack = draw(50, 32).inputs, BadNets(place="random")
    first, again, other = (attack.stamp(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(UsageError, match="place must be corner or random, not 'middle'"):
        BadNets(place="middle")  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["corner", "random"])
def test_a_faint_patch_is_mixed_with_what_is_below_it(place: Place) -> None:
    images = draw(20, 32).inputs
    solid = BadNets(place=place).stamp(images, np.random.default_rng(3))
    faint = BadNets(place=place, alpha=0.25).stamp(images, np.random.default_rng(3))
    np.testing.assert_array_equal(faint, np.rint(0.75 * images + 0.25 * solid))
    for alpha in (0, 1.1):
        with pytest.raises(UsageError, match="alpha"):
            BadNets(alpha=alpha)
