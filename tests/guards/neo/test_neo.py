"""NEO from end to end, on a classifier whose every answer is known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.calibration import Threshold, conformal_threshold
from foretaste.classifiers.classifier import Answers
from foretaste.errors import ForetasteError, UsageError
from foretaste.guards.neo import NEO, NEOScreener, Registry, learn, load, save
from foretaste.guards.neo.regions import Box
from foretaste.guards.neo.screener import State
from foretaste.samples import Images, Samples

CORNER = (29, 29)


STATES: dict[Any, State] = {}
"""Calibrations are long; each is made once."""


def calibrated(model: Any, clean: Samples, **fields: Any) -> NEOScreener:
    """Return a screener for the model, with these hyperparameters at work."""
    key = (model.target, model.place, model.works, len(clean))
    if key not in STATES:
        STATES[key] = NEO().calibrate(model, clean, false_alarm_rate=0.05, seed=3).state
    return NEOScreener(model, replace(STATES[key], method=NEO(**fields)), Registry())


@pytest.mark.parametrize(("target", "place"), [(1, CORNER), (1, None), (None, CORNER), (1, (14, 14)), (None, None)])
def test_it_finds_removes_and_shows_the_trigger(
    world: Any, clean: Samples, inputs: Samples, target: int | None, place: tuple[int, int] | None
) -> None:
    model = world.Backdoored(target=target, place=place)
    screener = calibrated(model, clean)
    trojaned = np.arange(len(inputs)) % 3 == 0
    images = np.array(inputs.inputs)
    images[trojaned] = world.stamp(images[trojaned], place)
    victims = trojaned & (model.classify(images).labels != inputs.labels)
    screening = screener.screen(images)
    np.testing.assert_array_equal(screening.trojaned, victims)
    np.testing.assert_array_equal(screening.corrected, inputs.labels)
    assert screening.queries.max() <= 64
    [trigger] = screener.registry
    assert trigger.target == target
    assert set(screening.trigger_ids[victims]) == {trigger.id}
    assert set(screening.trigger_ids[~victims]) == {""}
    if place is not None:
        assert Box(*trigger.box).overlap(Box(*place, place[0] + 3, place[1] + 3)) == 1
    np.testing.assert_array_equal(trigger.patch, world.PATCH)
    assert trigger.mask.all()
    assert trigger.anywhere == (place is None)


def test_a_clean_model_raises_no_alarm(world: Any, clean: Samples) -> None:
    screener = calibrated(world.Backdoored(works=False), clean)
    screening = screener.screen(world.draw(60, 4).inputs)
    assert not screening.trojaned.any()
    assert len(screener.registry) == 0
    assert np.median(screening.queries) <= 28


def test_one_search_costs_at_most_64_questions_and_24_at_the_median(
    world: Any, clean: Samples, inputs: Samples
) -> None:
    model = world.Backdoored(place=CORNER)
    screener = calibrated(model, clean)
    asked = model.asked
    screening = screener.search(world.stamp(inputs.inputs[inputs.labels != 1], CORNER))
    assert screening.trojaned.all()
    assert screening.queries.sum() == model.asked - asked
    assert screening.queries.max() <= 64
    assert np.median(screening.queries) <= 24
    assert len(screener.registry) == 0


def test_all_images_of_a_call_are_asked_about_together(world: Any, clean: Samples, inputs: Samples) -> None:
    model = world.Backdoored(place=CORNER)
    screener = calibrated(model, clean)
    before = model.batches
    screening = screener.search(inputs.inputs)
    assert model.batches - before <= 64 < screening.queries.sum()


def test_the_same_seed_gives_the_same_verdicts_in_whatever_batches(world: Any, clean: Samples, inputs: Samples) -> None:
    images = world.stamp(inputs.inputs, None)
    model = world.Backdoored()
    first, second = calibrated(model, clean).search(images), calibrated(model, clean)
    parts = [second.search(images[rows]) for rows in np.array_split(np.arange(len(images)), 7)]
    for name in ("labels", "corrected", "trojaned", "scores", "queries"):
        np.testing.assert_array_equal(getattr(first, name), np.concatenate([getattr(part, name) for part in parts]))


def test_no_inputs_are_no_trouble(world: Any, clean: Samples) -> None:
    screening = calibrated(world.Backdoored(), clean).screen(clean.inputs[:0])
    assert len(screening) == 0


def test_images_of_another_shape_are_refused(world: Any, clean: Samples) -> None:
    screener = calibrated(world.Backdoored(), clean)
    with pytest.raises(UsageError, match="inputs must be images"):
        screener.screen(np.zeros((1, 28, 28, 3), dtype=np.uint8))


def test_a_known_trigger_costs_one_question_more(world: Any, clean: Samples, inputs: Samples) -> None:
    screener = calibrated(world.Backdoored(place=CORNER), clean, search_budget=0.0)
    screener.registry = calibrated_registry(world, clean)
    images = np.array(inputs.inputs)
    images[::10] = world.stamp(images[::10], CORNER)
    screening = screener.screen(images)
    carries = (np.arange(len(images)) % 10 == 0) & (inputs.labels != 1)
    np.testing.assert_array_equal(screening.trojaned, carries)
    np.testing.assert_array_equal(screening.corrected, inputs.labels)
    assert screening.queries.mean() <= 1.2
    assert screening.queries.max() <= 2


def calibrated_registry(world: Any, clean: Samples) -> Registry:
    screener = calibrated(world.Backdoored(place=CORNER), clean)
    screener.screen(world.stamp(world.draw(30, 9).inputs, CORNER))
    return screener.registry


def test_the_search_budget_holds(world: Any, clean: Samples) -> None:
    screener = calibrated(world.Backdoored(place=CORNER), clean, search_budget=4.0)
    screening = screener.screen(world.draw(150, 5).inputs)
    assert 1 < screening.queries.mean() <= 1 + 4 * 1.5


def test_the_budget_goes_to_the_label_that_has_become_frequent(world: Any, clean: Samples) -> None:
    screener = calibrated(world.Backdoored(place=CORNER), clean, search_budget=3.0)
    stream = world.draw(200, 6)
    images = np.array(stream.inputs)
    images[:100] = world.stamp(images[:100], CORNER)
    screening = screener.screen(images)
    carries = (np.arange(200) < 100) & (stream.labels != 1)
    np.testing.assert_array_equal(screening.trojaned, carries)


def test_earlier_inputs_are_looked_at_again(world: Any, clean: Samples, inputs: Samples) -> None:
    screener = calibrated(world.Backdoored(place=CORNER), clean, search_budget=0.0)
    missed = world.stamp(inputs.inputs[inputs.labels == 0], CORNER)
    assert not screener.screen(missed).trojaned.any()
    object.__setattr__(screener.state, "method", NEO())
    screener.screen(world.stamp(inputs.inputs[inputs.labels == 2], CORNER))
    revisions = screener.revised()
    assert [revision.number for revision in revisions] == list(range(len(missed)))
    assert {(revision.label, revision.corrected) for revision in revisions} == {(1, 0)}
    assert {revision.trigger_id for revision in revisions} == {trigger.id for trigger in screener.registry}
    assert screener.revised() == []


def test_an_array_that_is_used_again_does_not_change_what_was_seen(world: Any, clean: Samples, inputs: Samples) -> None:
    screener = calibrated(world.Backdoored(place=CORNER), clean)
    buffer = np.array(inputs.inputs)
    assert not screener.screen(buffer).trojaned.any()
    buffer[:] = world.stamp(inputs.inputs, CORNER)
    assert screener.screen(buffer).trojaned.any()
    assert screener.revised() == []


def test_several_triggers_with_several_targets(world: Any, clean: Samples, inputs: Samples) -> None:
    class Twofold(world.Backdoored):  # type: ignore[misc]
        def classify(self, images: Images) -> Answers:
            answers: Answers = super().classify(images)
            answers.labels[(images[:, :3, :3] == 255 - world.PATCH).all(axis=(1, 2, 3))] = 4
            return answers

    screener = calibrated(Twofold(place=CORNER), clean)
    images = world.stamp(inputs.inputs, CORNER)
    images[::2] = inputs.inputs[::2]
    images[::2, :3, :3] = 255 - world.PATCH
    screening = screener.screen(images)
    assert {trigger.target for trigger in screener.registry} == {1, 4}
    np.testing.assert_array_equal(screening.corrected, inputs.labels)


def test_threads_share_what_is_found(world: Any, clean: Samples, inputs: Samples) -> None:
    screener = calibrated(world.Backdoored(place=CORNER), clean)
    images = world.stamp(inputs.inputs, CORNER)
    with ThreadPoolExecutor(4) as pool:
        screenings = list(pool.map(screener.screen, np.array_split(images, 8)))
    np.testing.assert_array_equal(np.concatenate([part.corrected for part in screenings]), inputs.labels)
    assert len(screener.registry) == 1


def test_a_quarantine_gives_the_trigger(world: Any, clean: Samples, inputs: Samples) -> None:
    poison = Samples.from_arrays(world.stamp(inputs.inputs[:12], CORNER), np.ones(12, dtype=np.int64), inputs.classes)
    registry = learn(poison, world.Backdoored(place=CORNER), clean)
    assert [(trigger.position, trigger.target) for trigger in registry] == [(CORNER, 1)]
    assert len(learn(poison, world.Backdoored(works=False), clean)) == 0


def test_a_screener_survives_a_restart(world: Any, clean: Samples, inputs: Samples, tmp_path: Path) -> None:
    model = world.Backdoored(place=CORNER)
    screener = calibrated(model, clean, largest=0.2)
    images = world.stamp(inputs.inputs, CORNER)
    screener.screen(images[:20])
    save(screener, tmp_path / "guard")
    asked = model.asked
    again = load(tmp_path / "guard", model)
    assert model.asked == asked
    assert [trigger.id for trigger in again.registry] == [trigger.id for trigger in screener.registry]
    first, second = screener.search(images), again.search(images)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.queries, second.queries)
    assert again.state.method == screener.state.method


@pytest.mark.parametrize("file", ["state.json", "references.npz", "triggers/triggers.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00" * 100], ids=["empty", "no fields", "zeros"])
def test_a_damaged_screener_is_refused(world: Any, clean: Samples, tmp_path: Path, file: str, damage: bytes) -> None:
    save(calibrated(world.Backdoored(place=CORNER), clean), tmp_path)
    (tmp_path / file).write_bytes(damage)
    with pytest.raises(ForetasteError, match=file.split("/")[-1]):
        load(tmp_path, world.Backdoored())
    (tmp_path / file).unlink()
    with pytest.raises(ForetasteError, match="there is no"):
        load(tmp_path, world.Backdoored())


def test_too_small_a_clean_set_is_refused(world: Any, clean: Samples) -> None:
    with pytest.raises(UsageError, match="20"):
        NEO().calibrate(world.Backdoored(), clean[:19], false_alarm_rate=0.01, seed=0)
    samples = world.draw(150, 8)
    with pytest.raises(UsageError, match="one class"):
        NEO().calibrate(world.Backdoored(), samples[samples.labels == 0], false_alarm_rate=0.01, seed=0)


def test_twenty_clean_images_do(world: Any, clean: Samples, inputs: Samples) -> None:
    screener = calibrated(world.Backdoored(place=CORNER), clean[:20])
    screening = screener.screen(world.stamp(inputs.inputs, CORNER))
    np.testing.assert_array_equal(screening.corrected, inputs.labels)


@pytest.mark.parametrize(("fields", "expected"), [({}, 0.8), ({"confidence": 0.5}, 0.5)])
def test_the_threshold_keeps_the_rate_on_so_many_clean_sets(
    world: Any, clean: Samples, fields: dict[str, float], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def threshold(scores: Any, rate: float, confidence: float) -> Threshold:
        asked.append(confidence)
        return conformal_threshold(scores, rate, confidence)

    monkeypatch.setattr("foretaste.guards.neo.neo.conformal_threshold", threshold)
    NEO(calibration=20, **fields).calibrate(world.Backdoored(), clean, false_alarm_rate=0.2, seed=3)  # type: ignore[arg-type]
    assert asked == [expected]


def test_a_classifier_of_other_classes_is_refused(world: Any, clean: Samples) -> None:
    shifted = clean.with_labels((clean.labels + 1) % 6)
    with pytest.raises(ForetasteError, match="are its classes"):
        NEO().calibrate(world.Backdoored(), shifted, false_alarm_rate=0.01, seed=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"largest": 0},
        {"trigger_rate": 0.5},
        {"alpha": 0},
        {"beta": 1},
        {"queries": 3},
        {"search_budget": -1},
        {"confidence": -0.1},
        {"confidence": 1},
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        NEO(**fields)  # type: ignore[arg-type]


def test_two_pictures_that_become_one_are_kept_once(world: Any, clean: Samples, inputs: Samples) -> None:
    screener = calibrated(world.Backdoored(place=CORNER), clean, search_budget=0.0)
    [trigger] = calibrated_registry(world, clean)
    part = replace(trigger, patch=trigger.patch[1:], mask=trigger.mask[1:], position=(30, 29))
    screener.registry.keep([trigger, replace(trigger, flip_rate=0.5), part])
    object.__setattr__(screener.state, "method", NEO())
    screening = screener.screen(world.stamp(inputs.inputs, CORNER))
    np.testing.assert_array_equal(screening.corrected, inputs.labels)
    assert {screener.latest_id(name) for name in screening.trigger_ids.tolist()} <= {"", trigger.id}
