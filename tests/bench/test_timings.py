import json
from pathlib import Path

import pytest

from foretaste.bench.artefacts import Store
from foretaste.bench.cell import Choice
from foretaste.bench.timings import Timings

from .conftest import Finished


def test_what_a_cell_took_tells_what_the_next_one_takes(finished: Finished, tmp_path: Path) -> None:
    record = finished.records["badnets", "corner", False]
    timings = Timings({}, {}).with_record(record)
    seconds, training = record.figures["seconds"], record.figures["model_seconds"]
    assert seconds is not None
    assert training is not None
    assert timings.own["cleansers/bench_methods:Corner"] == pytest.approx(seconds / 200)
    assert timings.own["train/compact-resnet"] == pytest.approx(training / 200)  # one pass

    # On a new folder: the model, the method, and the model after.
    expected = timings.expect([record.cell], Store(str(tmp_path)))
    assert expected.seconds == pytest.approx(seconds + 2 * training)
    assert (expected.foreign, expected.unknown) == (False, ())
    # The model is there already.
    there = timings.expect([record.cell], Store(str(finished.folder / "out")))
    assert there.seconds == pytest.approx(seconds + training)


def test_what_is_not_known_here_is_taken_from_elsewhere_or_named(finished: Finished, tmp_path: Path) -> None:
    cell = finished.records["badnets", "corner", False].cell
    shipped = Timings({}, {"train/compact-resnet": 0.5})
    expected = shipped.expect([cell], Store(str(tmp_path)))
    assert expected.seconds == pytest.approx(2 * 200 * 0.5)
    assert expected.foreign
    assert expected.unknown == ("bench_methods:Corner",)


def test_a_victim_that_an_attack_made_of_a_model_says_nothing_of_trainings(finished: Finished, tmp_path: Path) -> None:
    record = finished.records["badnets", "corner", False]
    attack = Choice(label="trojan-nn", name="trojan-nn", settings={})
    trojaned = record.cell.model_copy(update={"attack": attack})
    timings = Timings({"train/compact-resnet": 0.5, "cleansers/bench_methods:Corner": 0.0}, {})
    told = timings.with_record(record.model_copy(update={"cell": trojaned}))
    assert told.own["train/compact-resnet"] == 0.5
    # What is trained is the model of the unpoisoned set, which is there already, and then the model after.
    assert timings.expect([trojaned], Store(str(finished.folder / "out"))).seconds == pytest.approx(200 * 0.5)
    assert timings.expect([trojaned], Store(str(tmp_path))).seconds == pytest.approx(2 * 200 * 0.5)


def test_methods_that_look_into_a_classifier_share_its_training(finished: Finished, tmp_path: Path) -> None:
    cell = finished.records["badnets", "corner", False].cell
    without = cell.model_copy(update={"conditions": {"retrain": False}})
    cells = [
        without.model_copy(update={"defence": Choice(label=name, name=name, settings={})})
        for name in ("frequency", "scan", "agpd")
    ]
    timings = Timings({"train/compact-resnet": 0.5} | {f"cleansers/{one.defence.name}": 0.01 for one in cells}, {})
    store = Store(str(tmp_path))
    assert timings.expect(cells[:1], store).seconds == pytest.approx(200 * 0.01)
    assert timings.expect(cells, store).seconds == pytest.approx(3 * 200 * 0.01 + 200 * 0.5)


@pytest.mark.parametrize(("name", "samples"), [("abl", 200), ("retrain", 200), ("nad", 1)])
def test_repairs_that_start_from_the_training_set_take_longer_the_larger_it_is(
    finished: Finished, name: str, samples: int
) -> None:
    cell = finished.records["badnets", "corner", False].cell
    defence = Choice(label=name, name=name, settings={})
    repair = cell.model_copy(update={"door": "repairs", "conditions": {}, "defence": defence})
    record = finished.records["badnets", "corner", False].model_copy(update={"cell": repair, "figures": {"seconds": 6}})
    timings = Timings({}, {}).with_record(record)
    assert timings.own == {f"repairs/{name}": 6 / samples}
    twice = repair.model_copy(update={"data": cell.data.model_copy(update={"used": 400})})
    store = Store(str(finished.folder / "out"))
    assert timings.expect([twice], store).seconds == pytest.approx(12 if samples > 1 else 6)


def test_timings_are_kept_in_the_cache_and_a_damaged_file_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path))
    assert "train/compact-resnet" in Timings.load().shipped
    Timings({"a/b": 2.0}, {}).save()
    assert Timings.load().own == {"a/b": 2.0}
    assert json.loads((tmp_path / "bench-seconds.json").read_text()) == {"a/b": 2.0}
    (tmp_path / "bench-seconds.json").write_text("{")
    assert Timings.load().own == {}
