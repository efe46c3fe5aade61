import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import foretaste
from foretaste.cleansers.verdict import Verdict
from foretaste.errors import ForetasteError
from foretaste.io import Loaded, Skipped, load
from foretaste.report.results import save_cleanse
from foretaste.samples import Mask, Samples

FILES = {"verdicts.parquet", "cleansed.parquet", "quarantine.parquet", "keep.csv", "report.html", "summary.json"}
ALWAYS = {"version", "method", "seed", "seconds", "n_samples", "n_flagged", "poisoned", "suspect_classes", "n_skipped"}


def save(out: Path, samples: Samples, verdict: Verdict, **more: Any) -> dict[str, Any]:
    return save_cleanse(out, samples, verdict, source="train.parquet", settings={"rounds": 6}, **more)


def test_every_file_is_there_and_nothing_half_written(tmp_path: Path, samples: Samples, verdict: Verdict) -> None:
    save(tmp_path / "new" / "out", samples, verdict)
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == FILES


def test_summary_says_what_was_found(tmp_path: Path, samples: Samples, verdict: Verdict) -> None:
    summary = save(
        tmp_path, samples, verdict, clean_size=200, loaded=Loaded(samples, (Skipped("bad.png", "is not an image"),))
    )
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary.keys() >= ALWAYS
    assert not summary.keys() & {"tpr", "fpr", "auroc"}
    expected = {
        "version": foretaste.__version__,
        "method": "confusion-training",
        "seed": 7,
        "seconds": 61.25,
        "n_samples": 120,
        "n_flagged": 10,
        "poisoned": True,
        "suspect_classes": [{"label": 2, "name": "fifty"}],
        "clean_size": 200,
        "n_skipped": 1,
        "skipped": [{"name": "bad.png", "reason": "is not an image"}],
        "settings": {"rounds": 6},
        "notes": ["A note for the reader."],
        "source": "train.parquet",
    }
    assert {name: summary[name] for name in expected} == expected


def test_summary_compares_with_the_truth(tmp_path: Path, samples: Samples, verdict: Verdict, poison: Mask) -> None:
    cover = np.zeros_like(poison)
    cover[np.flatnonzero(verdict.flagged & ~poison)] = True
    cover[0] = True
    summary = save(tmp_path, samples, verdict, truth_poison=poison, truth_cover=cover)
    assert summary["tpr"] == pytest.approx(0.9)
    assert summary["fpr"] == pytest.approx(1 / 110)
    assert summary["auroc"] == pytest.approx(verdict.compare(poison).auroc)
    assert (summary["n_poison"], summary["n_cover"], summary["n_cover_flagged"]) == (10, 2, 1)


def test_rates_that_do_not_exist_are_null(tmp_path: Path, samples: Samples, cleared: Verdict) -> None:
    summary = save(tmp_path, samples, cleared, truth_poison=np.zeros(len(samples), dtype=np.bool_))
    assert (summary["tpr"], summary["fpr"], summary["auroc"]) == (None, 0.0, None)
    assert "null" in (tmp_path / "summary.json").read_text()


def test_nothing_found_leaves_an_empty_quarantine(tmp_path: Path, samples: Samples, cleared: Verdict) -> None:
    summary = save(tmp_path, samples, cleared)
    assert (summary["poisoned"], summary["n_flagged"], summary["suspect_classes"]) == (False, 0, [])
    assert pq.read_metadata(tmp_path / "quarantine.parquet").num_rows == 0
    assert pq.read_metadata(tmp_path / "cleansed.parquet").num_rows == len(samples)


def test_verdicts_hold_one_row_for_each_sample_in_order(tmp_path: Path, samples: Samples, verdict: Verdict) -> None:
    save(tmp_path, samples, verdict)
    table = pq.read_table(tmp_path / "verdicts.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("id", "string"),
        ("label", "int64"),
        ("score", "float"),
        ("flagged", "bool"),
    ]
    columns = table.to_pydict()
    assert columns["id"] == samples.ids.tolist()
    assert columns["label"] == samples.labels.tolist()
    assert columns["score"] == verdict.scores.tolist()
    assert columns["flagged"] == verdict.flagged.tolist()


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8, 1), (5,)])
def test_cleansed_and_quarantine_share_out_the_samples(
    tmp_path: Path,
    shape: tuple[int, ...],
    make_samples: Callable[..., Samples],
    verdict: Verdict,
) -> None:
    samples = make_samples(shape)
    save(tmp_path, samples, verdict)
    for name, part in ("cleansed", ~verdict.flagged), ("quarantine", verdict.flagged):
        written = load(tmp_path / f"{name}.parquet")
        assert written.classes == samples.classes
        assert written.ids.tolist() == samples.ids[part].tolist()
        np.testing.assert_array_equal(written.inputs, samples.inputs[part])


def test_settings_of_any_type_become_strict_json(tmp_path: Path, samples: Samples, verdict: Verdict) -> None:
    settings = {"a": (1, 2.5), "b": Path("x"), "c": np.float32(0.5), "d": float("inf"), "e": None, "f": {"g": True}}
    save_cleanse(tmp_path, samples, verdict, source="s", settings=settings)
    read = json.loads((tmp_path / "summary.json").read_text())["settings"]
    assert read == {"a": [1, 2.5], "b": "x", "c": 0.5, "d": None, "e": None, "f": {"g": True}}


def test_the_same_verdict_gives_the_same_files(
    tmp_path: Path, samples: Samples, verdict: Verdict, poison: Mask
) -> None:
    for run in "ab":
        save(tmp_path / run, samples, replace(verdict, seconds=1.0), truth_poison=poison)
    summaries = [json.loads((tmp_path / run / "summary.json").read_text()) for run in "ab"]
    created = [summary.pop("created") for summary in summaries]
    assert summaries[0] == summaries[1]
    for name in FILES - {"summary.json", "report.html"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    pages = [
        (tmp_path / run / "report.html").read_text().replace(f"{when[:10]} {when[11:16]}", "")
        for run, when in zip("ab", created, strict=True)
    ]
    assert pages[0] == pages[1]


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path, samples: Samples, verdict: Verdict) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ForetasteError, match="file"):
        save(tmp_path / "file", samples, verdict)


def test_the_ids_to_keep_are_listed(
    tmp_path: Path, make_samples: Callable[..., Samples], make_verdict: Callable[[Samples, Mask], Verdict]
) -> None:
    ids = [f"a,{row}" if row % 2 else f'b"{row}' for row in range(120)]
    samples = make_samples((3,), ids=ids)
    flagged = np.arange(120) < 118
    save(tmp_path, samples, make_verdict(samples, flagged))
    assert (tmp_path / "keep.csv").read_text() == 'id\n"b""118"\n"a,119"\n'
    with (tmp_path / "keep.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["id", *ids[118:]]


def test_a_run_that_fails_leaves_no_summary_of_an_earlier_one(
    tmp_path: Path, samples: Samples, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, samples, verdict)

    def fail(path: Path, text: str) -> None:
        raise ForetasteError("cannot write it: No space left on device")

    monkeypatch.setattr("foretaste.report.results.atomic_text", fail)
    with pytest.raises(ForetasteError, match="No space left"):
        save(tmp_path, samples, verdict)
    assert not (tmp_path / "summary.json").exists()
