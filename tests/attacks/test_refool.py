from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foretaste.attacks._base.attack import trained
from foretaste.attacks._base.fitting import with_weights
from foretaste.attacks.refool.refool import Refool, reflect, scene
from foretaste.attacks.refool.selection import select
from foretaste.errors import ForetasteError, UsageError
from foretaste.progress import silent
from foretaste.samples import Samples


def draw(n: int = 400) -> Samples:
    images = np.random.default_rng(5).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % 4)


def unselected(**fields: Any) -> Refool:
    """Return an attack that takes the first reflections that it draws."""
    attack = Refool(**fields)
    return with_weights(attack, {"reflections": attack.candidates(32, 32, 3)[: attack.count]})


def test_all_poison_is_of_the_target_class_under_its_true_label() -> None:
    clean = draw()
    poisoned = unselected(rate=0.2, target=2).poison(clean, np.random.default_rng(0))
    assert poisoned.poison.sum() == 80
    assert (clean.labels[poisoned.poison] == 2).all()
    np.testing.assert_array_equal(poisoned.samples.labels, clean.labels)


def test_more_poison_than_the_target_class_holds_is_refused() -> None:
    with pytest.raises(UsageError, match="needs 120 samples to poison, but only 100 can be used"):
        unselected(rate=0.3).poison(draw(), np.random.default_rng(0))


def test_each_image_gets_one_of_the_reflections_within_the_intensities() -> None:
    attack = unselected(intensity=(0.2, 0.4))
    added = attack.stamp(np.zeros((200, 32, 32, 3), np.uint8), np.random.default_rng(0)).astype(float)
    reflections = trained(attack.weights)["reflections"].astype(float).reshape(12, -1)
    used = set()
    for image in added.reshape(200, -1):
        strengths = reflections @ image / (reflections**2).sum(axis=1)
        errors = np.abs(image - strengths[:, None] * reflections).max(axis=1)
        best = int(errors.argmin())
        assert errors[best] < 0.75  # rounding, and what it does to the fitted strength
        assert 0.19 < strengths[best] < 0.41
        used.add(best)
    assert used == set(range(12))


def test_a_reflection_only_adds_light() -> None:
    images = draw(50).inputs
    assert (unselected().stamp(images, np.random.default_rng(0)) >= images).all()


def test_the_kinds_of_reflections() -> None:
    """A single bright point stays one, becomes a smooth spot, or two points; light is neither made nor lost."""
    point = np.zeros((32, 32, 1), np.uint8)
    point[16, 16] = 200
    sharp, blurred, ghost = (reflect(point, kind, np.random.default_rng(0)) for kind in ("sharp", "blurred", "ghost"))
    np.testing.assert_array_equal(sharp, point)
    assert blurred.max() < 60
    assert blurred.argmax() == point.argmax()
    assert 100 <= ghost[16, 16, 0] < 200
    assert np.flatnonzero(ghost > 0).size > 1
    for reflection in (blurred, ghost):
        assert reflection.sum() == pytest.approx(200, rel=0.01)


def test_scenes_differ_and_have_dark_and_bright_parts() -> None:
    rng = np.random.default_rng(0)
    first, second = scene(32, 32, rng), scene(32, 32, rng)
    assert not np.array_equal(first, second)
    assert np.ptp(first) > 100


def test_pictures_of_a_folder_are_reflected_in_turn(tmp_path: Path) -> None:
    for name, value in [("a", 50), ("b", 100)]:
        Image.new("RGB", (8, 8), (value,) * 3).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "notes.pdf").write_text("a kind that Pillow can only write")
    reflections = Refool(pictures=tmp_path, count=3, kinds=("sharp",), selections=0).candidates(16, 16, 3)
    assert [np.unique(reflection).tolist() for reflection in reflections] == [[50], [100], [50]]


def test_a_folder_without_pictures_and_a_broken_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder with image files"):
        Refool(pictures=tmp_path).candidates(32, 32, 3)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ForetasteError, match=r"broken\.png"):
        Refool(pictures=tmp_path).candidates(32, 32, 3)


def test_the_reflections_that_work_are_selected() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (400, 16, 16, 3), dtype=np.uint8)
    images[::2, :8, :, 0] += 60
    clean = Samples.from_arrays(images, np.arange(400) % 2)
    stripes = np.zeros((6, 16, 16, 3), np.float32)
    # Of six, five reflect nothing.
    stripes[3, :, ::4] = 255
    attack = Refool(rate=0.25, intensity=(0.8, 0.8), count=2)
    selected = select(
        clean,
        stripes,
        attack.lay,
        target=0,
        n_poison=100,
        count=2,
        rounds=2,
        epochs=10,
        seed=0,
        workdir=None,
        on_progress=silent,
    )["reflections"]
    assert np.array_equal(selected, stripes[[3, 0]])


def test_without_rounds_nothing_is_trained_and_the_first_are_taken() -> None:
    attack = Refool(selections=0, count=4)
    never: Callable[..., None] = pytest.fail
    weights = attack.fit(draw(), seed=0, workdir=None, on_progress=never)
    assert np.array_equal(weights["reflections"], attack.candidates(32, 32, 3))


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match="another shape"):
        unselected().stamp(np.zeros((2, 16, 16, 3), np.uint8), np.random.default_rng(0))


def test_a_picture_that_is_taken_again_is_reflected_in_another_way(tmp_path: Path) -> None:
    for name in "abc":
        picture = np.random.default_rng(ord(name)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    sharp_and_blurred = Refool(pictures=tmp_path, count=3, selections=1, kinds=("sharp", "blurred"))
    first, again = np.split(sharp_and_blurred.candidates(16, 16, 3), 2)
    assert all(not np.allclose(one, other) for one, other in zip(first, again, strict=True))


def test_another_seed_is_another_set_of_scenes() -> None:
    assert not np.array_equal(Refool().candidates(16, 16, 1), Refool(picture_seed=1).candidates(16, 16, 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"intensity": (0.5, 0.4)},
        {"intensity": (0.0, 0.4)},
        {"intensity": (0.1, 1.1)},
        {"kinds": ()},
        {"kinds": ("dull",)},
        {"count": 0},
        {"picture_seed": -1},
        {"selections": -1},
        {"epochs": 0},
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Refool(**fields)
