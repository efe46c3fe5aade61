import json
from pathlib import Path

import pytest

from foretaste.bench.artefacts import Store
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
