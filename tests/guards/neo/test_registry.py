"""The registry: matching, merging, and what is on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foretaste.errors import ForetasteError
from foretaste.guards.neo.registry import Registry
from foretaste.guards.trigger import Trigger
from foretaste.samples import Images

PATCH = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=np.uint8)[..., None]


def trigger(position: tuple[int, int] = (5, 6), *, anywhere: bool = False, target: int | None = 2) -> Trigger:
    return Trigger(
        patch=PATCH,
        mask=np.ones((3, 3), dtype=np.bool_),
        position=position,
        anywhere=anywhere,
        target=target,
        flip_rate=0.96,
        n_confirmed=24,
    )


def scene(position: tuple[int, int] | None, noise: int = 0) -> Images:
    rng = np.random.default_rng(0)
    image = rng.integers(60, 160, (1, 20, 24, 1))
    if position is not None:
        image[0, position[0] : position[0] + 3, position[1] : position[1] + 3] = PATCH
    noisy: Images = np.clip(image + rng.integers(-noise, noise + 1, image.shape), 0, 255).astype(np.uint8)
    return noisy


def test_a_trigger_is_seen_at_its_place_only() -> None:
    registry = Registry([trigger()])
    [match] = registry.match(scene((5, 6)), np.array([2]))
    assert match is not None
    assert match.box == (5, 6, 8, 9)
    assert registry.match(scene((5, 7)), np.array([2])) == [None]
    assert registry.match(scene(None), np.array([2])) == [None]


def test_a_trigger_that_works_anywhere_is_seen_anywhere_through_noise() -> None:
    registry = Registry([trigger(anywhere=True)])
    for position in ((0, 0), (17, 21), (9, 3)):
        [match] = registry.match(scene(position, noise=20), np.array([2]))
        assert match is not None
        assert match.box[:2] == position


def test_a_trigger_with_a_target_is_looked_for_under_that_answer_only() -> None:
    assert Registry([trigger()]).match(scene((5, 6)), np.array([1])) == [None]
    assert Registry([trigger(target=None)]).match(scene((5, 6)), np.array([1])) != [None]


def test_an_image_smaller_than_the_trigger_holds_none() -> None:
    assert Registry([trigger(anywhere=True)]).match(np.zeros((1, 2, 2, 1), dtype=np.uint8), np.array([2])) == [None]


def test_equal_triggers_are_kept_once() -> None:
    part = replace(trigger(), patch=PATCH[:2], mask=np.ones((2, 3), dtype=np.bool_))
    elsewhere, other = trigger((12, 12)), trigger(target=3)
    first = Registry([trigger(), part, elsewhere])
    assert len(first) == 2
    merged = first.merge(Registry([trigger(), other]))
    assert [found.id for found in merged] == [trigger().id, elsewhere.id, other.id]
    assert len(first) == 2


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    masked = replace(trigger(), mask=np.eye(3, dtype=np.bool_), position=(1, 1))
    coloured = replace(trigger(target=None, anywhere=True), patch=PATCH.repeat(3, axis=2))
    Registry([masked, coloured]).save(tmp_path / "known")
    loaded = list(Registry.load(tmp_path / "known"))
    for before, after in zip([masked, coloured], loaded, strict=True):
        assert after.id == before.id
        np.testing.assert_array_equal(after.patch, before.patch)
        np.testing.assert_array_equal(after.mask, before.mask)
        assert (after.position, after.anywhere, after.target) == (before.position, before.anywhere, before.target)
        assert (after.flip_rate, after.n_confirmed) == (before.flip_rate, before.n_confirmed)


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", "../../etc/pw"), ("id", "x"), ("position", [-1, 0]), ("flip_rate", 2), ("channels", 9), ("more", 1)],
)
def test_a_damaged_index_is_refused(tmp_path: Path, field: str, value: object) -> None:
    Registry([trigger()]).save(tmp_path)
    index = json.loads((tmp_path / "triggers.json").read_text())
    index["triggers"][0][field] = value
    (tmp_path / "triggers.json").write_text(json.dumps(index))
    with pytest.raises(ForetasteError, match=r"triggers\.json is damaged"):
        Registry.load(tmp_path)


def test_a_damaged_or_missing_picture_is_refused(tmp_path: Path) -> None:
    Registry([trigger()]).save(tmp_path)
    [path] = tmp_path.glob("*.png")
    whole = path.read_bytes()
    for damage in (b"", b"GIF89a", whole[:40]):
        path.write_bytes(damage)
        with pytest.raises(ForetasteError, match=path.name):
            Registry.load(tmp_path)
    Registry([replace(trigger(), patch=255 - PATCH)]).save(tmp_path / "other")
    [swapped] = (tmp_path / "other").glob("*.png")
    path.write_bytes(swapped.read_bytes())
    with pytest.raises(ForetasteError, match="damaged"):
        Registry.load(tmp_path)
    path.unlink()
    with pytest.raises(ForetasteError, match="not there"):
        Registry.load(tmp_path)


def test_an_empty_folder_is_no_registry(tmp_path: Path) -> None:
    with pytest.raises(ForetasteError, match="no registry"):
        Registry.load(tmp_path)
