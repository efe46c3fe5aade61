"""``foretaste cleanse`` around a cleanser that is quick: black images are poison."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from foretaste import cli, io
from foretaste.attacks import BadNets, poison_training_set
from foretaste.classifiers.classifier import Classifier
from foretaste.cleansers import CLEANSERS
from foretaste.cleansers.confusion_training import ConfusionTraining
from foretaste.cleansers.verdict import ClassEvidence, Verdict
from foretaste.errors import ForetasteError
from foretaste.guards.neo.registry import Registry
from foretaste.guards.trigger import Trigger
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.conftest import CheckJson, CheckSarif, Launch, SmallSigns


@dataclass(frozen=True, kw_only=True)
class Darkness:
    """Flag images darker than ``limit``, after ``pause`` seconds."""

    name: ClassVar[str] = "darkness"
    summary: ClassVar[str] = "images that are dark all over"

    limit: float = 10.0
    pause: float = 0.0

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        on_progress(Progress(phase="wait", done=0, total=1))
        if workdir is not None:
            (workdir / "checkpoint").touch()
        time.sleep(self.pause)
        on_progress(Progress(phase="wait", done=1, total=1))
        scores = -samples.inputs.mean(axis=(1, 2, 3)).astype(np.float32)
        flagged = scores > -self.limit
        evidence = tuple(
            ClassEvidence(
                label=label,
                n_samples=int((samples.labels == label).sum()),
                n_suspects=int((flagged & (samples.labels == label)).sum()),
                n_flagged=int((flagged & (samples.labels == label)).sum()),
                statistic=float((flagged & (samples.labels == label)).any()),
                threshold=0.5,
                condemned=bool((flagged & (samples.labels == label)).any()),
                reason="some images are dark",
            )
            for label in range(len(samples.classes))
        )
        return Verdict(scores=scores, flagged=flagged, classes=evidence, method=self.name, seed=seed, seconds=0.0)


@dataclass(frozen=True, kw_only=True)
class FirstRow(Darkness):
    """Flag the first sample, whatever it is."""

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        flagged = np.arange(len(samples)) == 0
        return Verdict(
            scores=flagged.astype(np.float32), flagged=flagged, classes=(), method=self.name, seed=seed, seconds=0.0
        )


if __name__ == "__main__":  # the process that a test below interrupts
    # A shell starts what runs in the background deaf to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    CLEANSERS["darkness"] = Darkness
    sys.exit(cli.main(sys.argv[1:]))


@pytest.fixture(autouse=True)
def _darkness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLEANSERS, "darkness", Darkness)


def save(path: Path, dark: list[int], n: int = 60) -> str:
    """Save ``n`` images in 2 classes, the named ones black."""
    images = np.random.default_rng(0).integers(40, 200, (n, 8, 8, 1), dtype=np.uint8)
    images[dark] = 0
    np.savez(path, x=images, y=np.arange(n) % 2)
    return str(path)


@pytest.fixture
def poisoned(tmp_path: Path) -> str:
    return save(tmp_path / "set.npz", [3, 5])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


METHOD = ["--method", "darkness"]


def test_poison_is_exit_code_1_and_taken_out(poisoned: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cleanse", poisoned, *METHOD, "--out", str(out)]) == 1
    text = capsys.readouterr().out
    assert text.startswith(
        f"poison found: 2 of 60 samples, taken out to {out / 'quarantine.parquet'}\n  class 1: 2 of 30"
    )
    assert "the truth" not in text
    assert len(io.load(out / "cleansed.parquet")) == 58
    assert len(io.load(out / "quarantine.parquet")) == 2
    assert pq.read_table(out / "verdicts.parquet").column_names == ["id", "label", "score", "flagged"]
    assert {path.name for path in out.iterdir()} == {
        "verdicts.parquet",
        "cleansed.parquet",
        "quarantine.parquet",
        "keep.csv",
        "summary.json",
        "report.html",
    }


def test_nothing_found_is_exit_code_0(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cleanse", save(tmp_path / "set.npz", []), *METHOD, "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("nothing found in 60 samples\n")


def test_json_is_all_that_is_printed_and_the_same_as_the_file(
    poisoned: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["cleanse", poisoned, *METHOD, "--set", "limit=20", "--seed", "4", "--json", "--out", str(out)]
    assert cli.main(arguments) == 1
    output = capsys.readouterr()
    summary = json.loads(output.out)
    assert output.err == ""
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["method"], summary["seed"], summary["n_flagged"], summary["poisoned"]) == ("darkness", 4, 2, True)
    assert summary["settings"]["limit"] == 20


def test_the_truth_gives_the_rates(
    poisoned: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], check_json: "CheckJson"
) -> None:
    ids = io.load(poisoned).ids
    truth = tmp_path / "truth.json"
    io.write_truth(io.Truth(poison=frozenset(ids[[3, 8]].tolist())), truth)
    assert cli.main(["cleanse", poisoned, *METHOD, "--truth", str(truth), "--out", str(out)]) == 1
    assert "against the truth: 50.00% of the poison found, 1.72% false alarms" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["tpr"] == 0.5
    assert summary["fpr"] == pytest.approx(1 / 58)
    check_json(summary)


def test_the_truth_about_test_inputs_is_refused(
    poisoned: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.json"
    io.write_truth(io.Truth(trojaned=frozenset(io.load(poisoned).ids[:1].tolist())), truth)
    assert cli.main(["cleanse", poisoned, *METHOD, "--truth", str(truth), "--out", str(out)]) == 4
    assert "is about test inputs" in capsys.readouterr().err


@pytest.mark.parametrize(("fail_on", "code"), [("never", 0), ("found", 1), ("0.03", 1), ("4%", 0)])
def test_the_exit_code_follows_the_policy(fail_on: str, code: int, poisoned: str, out: Path) -> None:
    """Two of sixty samples are poison."""
    assert cli.main(["cleanse", poisoned, *METHOD, "--fail-on", fail_on, "--out", str(out)]) == code
    assert json.loads((out / "summary.json").read_text())["poisoned"] is True


def test_the_sarif_file_lists_the_flagged_samples_and_is_replaced_by_the_next_run(
    poisoned: str, tmp_path: Path, out: Path, check_sarif: "CheckSarif", capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "found.sarif"
    arguments = ["cleanse", poisoned, *METHOD, "--sarif", str(path)]
    assert cli.main([*arguments, "--fail-on", "never", "--out", str(out)]) == 0
    [result] = check_sarif(json.loads(path.read_text()))["results"]
    assert result["ruleId"] == "poisoned-class"
    assert result["message"]["text"] == "Flagged as poison: 2 of 30 samples of class 1. Some images are dark."
    assert [place["logicalLocations"][0]["name"] for place in result["locations"]] == ["03", "05"]
    [uri] = {place["physicalLocation"]["artifactLocation"]["uri"] for place in result["locations"]}
    assert uri == Path(poisoned).as_uri()
    assert cli.main([*arguments, "--set", "limit=0", "--out", str(tmp_path / "other")]) == 0
    assert check_sarif(json.loads(path.read_text()))["results"] == []
    capsys.readouterr()
    assert cli.main(["cleanse", poisoned, *METHOD, "--sarif", poisoned, "--out", str(out)]) == 4
    assert "would be overwritten" in capsys.readouterr().err


def test_the_files_of_a_split_are_found(tmp_path: Path, out: Path, check_sarif: "CheckSarif") -> None:
    for row in range(40):
        folder = tmp_path / "set" / "train" / f"class {row % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 0 if row == 0 else 90).save(folder / f"{row}.png")
    arguments = ["cleanse", str(tmp_path / "set"), "--split", "train", *METHOD, "--sarif", str(tmp_path / "a.sarif")]
    assert cli.main([*arguments, "--out", str(out)]) == 1
    [result] = check_sarif(json.loads((tmp_path / "a.sarif").read_text()))["results"]
    [place] = result["locations"]
    file = tmp_path / "set" / "train" / "class 0" / "0.png"
    assert place["physicalLocation"]["artifactLocation"] == {"uri": file.as_uri()}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--method", "nonesuch"], "nonesuch"),
        ([*METHOD, "--set", "limits=3"], "there is no setting 'limits'; known: limit, pause"),
        ([*METHOD, "--set", "limit=dark"], "--set limit=dark: input should be a valid number"),
        ([*METHOD, "--seed", "-1"], "'--seed'"),
        ([*METHOD, "--seed", str(2**32)], "'--seed'"),
        ([*METHOD, "--resize", "0"], "--resize takes N or WxH, in pixels, not '0'"),
        ([*METHOD, "--resize", "8x"], "--resize takes N or WxH, in pixels, not '8x'"),
        ([*METHOD, "--split", "train"], "has no splits; leave --split out"),
        ([*METHOD, "--on-bad", "panic"], "'--on-bad'"),
        ([*METHOD, "--fail-on", "some"], "--fail-on takes never, found, or a share above 0 and up to 1 (0.01 or 1%)"),
        ([*METHOD, "--clean", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_bad_usage(
    options: list[str], complaint: str, poisoned: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["cleanse", poisoned, *options, "--out", str(out)]) == 4
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("foretaste: error: ")
    assert complaint in output.err


def test_a_clean_set_of_another_shape_is_refused(
    poisoned: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.npz"
    np.savez(other, x=np.zeros((20, 9, 9, 1), dtype=np.uint8), y=np.arange(20) % 2)
    assert cli.main(["cleanse", poisoned, *METHOD, "--clean", str(other), "--out", str(out)]) == 4
    assert "clean" in capsys.readouterr().err


def test_a_damaged_file_is_exit_code_2(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK\x03\x04 and no more")
    assert cli.main(["cleanse", str(damaged), *METHOD, "--out", str(out)]) == 2
    assert str(damaged) in capsys.readouterr().err


def test_what_was_skipped_is_counted(tmp_path: Path, out: Path) -> None:
    for label in ("cat", "dog"):
        folder = tmp_path / "set" / label
        folder.mkdir(parents=True)
        for index, image in enumerate(io.draw_signs(15).inputs):
            Image.fromarray(image).save(folder / f"{index}.png")
    (tmp_path / "set" / "cat" / "torn.png").write_bytes(b"\x89PNG and no more")
    arguments = ["cleanse", str(tmp_path / "set"), *METHOD, "--out", str(out)]
    assert cli.main(arguments) == 2
    assert cli.main([*arguments, "--on-bad", "skip"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n_skipped"] == 1
    assert "torn.png" in summary["skipped"][0]["name"]


def test_an_interrupted_run_keeps_its_checkpoints_and_goes_on(poisoned: str, out: Path) -> None:
    arguments = ["cleanse", poisoned, *METHOD, "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments, "--set", "pause=60"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(out.glob(".work/**/checkpoint")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "interrupted; start again with the same arguments to go on\n"
    assert list(out.glob(".work/**/checkpoint"))
    assert not (out / "summary.json").exists()

    assert cli.main(arguments) == 1
    assert not (out / ".work").exists()


MODEL = """
def classify(images):
    return (images.mean(axis=(1, 2, 3)) > 0).astype(int)
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that calls black images 0 and all others 1."""
    (tmp_path / "dark_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "dark_model", raising=False)
    return "dark_model:classify"


def black_trigger(
    quarantine: Samples, classifier: Classifier, clean: Samples, *, seed: int, on_progress: OnProgress
) -> Registry:
    """Reconstruct a black square in the middle."""
    assert classifier.classify(quarantine.inputs).labels.tolist() == [0, 0]
    assert not (clean.inputs == 0).all(axis=(1, 2, 3)).any()
    assert len(clean) == 58
    patch, mask = np.zeros((2, 2, 1), dtype=np.uint8), np.ones((2, 2), dtype=np.bool_)
    trigger = Trigger(patch=patch, mask=mask, position=(3, 3), anywhere=False, target=1, flip_rate=0.95, n_confirmed=20)
    return Registry([trigger])


def test_with_a_model_the_trigger_of_what_was_flagged_is_reconstructed(
    poisoned: str,
    out: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    check_json: "CheckJson",
    check_sarif: "CheckSarif",
) -> None:
    monkeypatch.setattr("foretaste.guards.neo.flagged.learn", black_trigger)
    log = out.parent / "found.sarif"
    assert cli.main(["cleanse", poisoned, *METHOD, "--model", model, "--sarif", str(log), "--out", str(out)]) == 1
    text = capsys.readouterr().out
    assert "2 x 2 pixels at row 3, column 3, forces 1 (95.00% of 20 clean images); in 2 samples" in text
    assert "58 samples that passed stood in for it to reconstruct triggers" in text
    (trigger,) = Registry.load(out / "triggers")
    summary = json.loads((out / "summary.json").read_text())
    assert [(one["id"], one["n_found"]) for one in summary["triggers"]] == [(trigger.id, 2)]
    assert f"Trigger {trigger.id}" in (out / "report.html").read_text()
    check_json(summary)
    check_json(json.loads((out / "triggers" / "triggers.json").read_text()))
    results = check_sarif(json.loads(log.read_text()))["results"]
    assert [result["ruleId"] for result in results] == ["poisoned-class", "trigger"]
    assert [len(result["locations"]) for result in results] == [2, 2]


def test_without_poison_no_trigger_is_looked_for(
    tmp_path: Path, out: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.guards.neo.flagged.learn", None)
    assert cli.main(["cleanse", save(tmp_path / "set.npz", []), *METHOD, "--model", model, "--out", str(out)]) == 0
    assert not (out / "triggers").exists()


def test_a_model_that_fails_costs_the_trigger_but_not_the_verdict(
    poisoned: str, out: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> Registry:
        raise ForetasteError("the model is down")

    monkeypatch.setattr("foretaste.guards.neo.flagged.learn", fail)
    assert cli.main(["cleanse", poisoned, *METHOD, "--model", model, "--out", str(out)]) == 1
    assert "note: no trigger could be reconstructed: the model is down" in capsys.readouterr().out
    assert len(io.load(out / "quarantine.parquet")) == 2


def test_the_list_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cleanse", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} >= set(CLEANSERS)


QUICK = ["--method", "darkness"]


def photos(folder: Path) -> Path:
    """Save 12 photographs of each of two classes, one of them black, with what pictures hold beside their pixels."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(60, 200, (12, 16, 3), dtype=np.uint8) * (label == "cat" or index > 0)
            exif = Image.Exif()
            exif[0x0112] = 6  # to be shown turned by a quarter
            Image.fromarray(pixels).save(folder / label / f"{index}.jpg", exif=exif)
    return folder


@pytest.mark.parametrize(
    "more", [["--method", "residual-trees"], ["--method", "asset"], ["--seed", "x"], ["--set", "no=1"]]
)
def test_a_run_that_is_refused_leaves_the_results_of_the_one_before(tmp_path: Path, out: Path, more: list[str]) -> None:
    arguments = ["cleanse", str(photos(tmp_path / "photos")), *QUICK, "--out", str(out)]
    assert cli.main(arguments) == 1
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert cli.main([*arguments, *more]) == 4
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_the_cleansed_set_is_the_users_own_files(tmp_path: Path, out: Path) -> None:
    folder = photos(tmp_path / "photos")
    arguments = ["cleanse", str(folder), *QUICK, "--resize", "8x6", "--format", "source", "--out", str(out)]
    assert cli.main(arguments) == 1
    rows = pq.read_table(out / "cleansed.parquet")["image"].to_pylist()
    assert len(rows) == 23
    for row in rows:
        assert row["bytes"] == (folder / row["path"]).read_bytes()
    copies = sorted(path.relative_to(out / "cleansed") for path in (out / "cleansed").rglob("*.jpg"))
    assert sorted(map(str, copies)) == sorted(row["path"] for row in rows)
    assert all((out / "cleansed" / path).read_bytes() == (folder / path).read_bytes() for path in copies)
    assert (out / "quarantine" / "dog" / "0.jpg").exists()
    assert io.load(out / "quarantine.parquet").sample_shape == (12, 16, 3)
    assert cli.main(arguments) == 4  # the copies are the user's now


def test_the_cleansed_set_has_all_columns_of_the_source(tmp_path: Path, out: Path) -> None:
    folder = photos(tmp_path / "photos")
    files = sorted(folder.rglob("*.jpg"))
    table = pa.table(
        {
            "photo": pa.array(
                [
                    {"bytes": None if i % 2 else f.read_bytes(), "path": str(f.relative_to(tmp_path))}
                    for i, f in enumerate(files)
                ]
            ),
            "label": pa.array([f.parent.name for f in files]).dictionary_encode(),
            "caption": [f"a {f.parent.name}" for f in files],
            "box": [[0, 0, i, i] for i in range(24)],
        }
    ).replace_schema_metadata({"curator": "me"})
    pq.write_table(table, tmp_path / "set.parquet")
    options = [*QUICK, "--resize", "8", "--image-column", "photo", "--out", str(out)]
    assert cli.main(["cleanse", str(tmp_path / "set.parquet"), *options]) == 1
    cleansed = pq.read_table(out / "cleansed.parquet")
    assert cleansed.schema.metadata[b"curator"] == b"me"
    black = [row for row, file in enumerate(files) if file.parent.name == "dog" and file.name == "0.jpg"]
    kept = [row for row in range(24) if row not in black]
    for name in ("label", "caption", "box"):
        assert cleansed[name].to_pylist() == table.take(kept)[name].to_pylist()
    assert [one["bytes"] for one in cleansed["photo"].to_pylist()] == [files[row].read_bytes() for row in kept]
    assert pq.read_table(out / "quarantine.parquet")["box"].to_pylist() == [[0, 0, black[0], black[0]]]


def test_arrays_and_lines_come_out_as_they_went_in(tmp_path: Path, out: Path) -> None:
    images = np.random.default_rng(0).integers(40, 200, (24, 8, 8, 1), dtype=np.uint8)
    images[5] = 0
    weights, classes = np.linspace(0, 1, 24), np.array(["a", "b"])
    np.savez(tmp_path / "set.npz", x=images, y=np.arange(24) % 2, weights=weights, classes=classes, note=np.array(3))
    arguments = [*QUICK, "--format", "source", "--out", str(out)]
    assert cli.main(["cleanse", str(tmp_path / "set.npz"), *arguments, "--resize", "4"]) == 1
    with np.load(out / "cleansed.npz") as cleansed:
        np.testing.assert_array_equal(cleansed["x"], np.delete(images, 5, axis=0))
        np.testing.assert_array_equal(cleansed["weights"], np.delete(weights, 5))
        assert cleansed["classes"].tolist() == ["a", "b"]
        assert int(cleansed["note"]) == 3
    assert io.load(out / "cleansed.parquet").sample_shape == (8, 8, 1)


def test_lines_of_a_table_come_out_as_they_went_in(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLEANSERS, "darkness", FirstRow)
    lines = ["id,a,text,label"] + [f'0{row},{row}.500,"one, ""{row}""\r\nof many",{row % 2}' for row in range(24)]
    (tmp_path / "set.csv").write_bytes("\r\n".join(lines).encode())
    assert cli.main(["cleanse", str(tmp_path / "set.csv"), *QUICK, "--format", "source", "--out", str(out)]) == 1
    assert (out / "cleansed.csv").read_bytes() == "\r\n".join([lines[0], *lines[2:]]).encode() + b"\n"
    assert (out / "quarantine.csv").read_bytes() == "\r\n".join(lines[:2]).encode() + b"\r\n"
    cleansed = pq.read_table(out / "cleansed.parquet")
    assert cleansed.column_names == ["id", "a", "text", "label"]
    assert cleansed["id"].to_pylist() == [f"0{row}" for row in range(1, 24)]
    assert len(io.load(out / "cleansed.parquet")) == 23


def test_what_was_left_out_and_what_was_taken_for_granted_is_told(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "cat" / "notes.heic").write_bytes(b"x")
    assert cli.main(["cleanse", str(folder), *QUICK, "--out", str(out)]) == 1
    assert (
        f"note: {folder}: left out 1; first cat/notes.heic, which is not named like an image" in capsys.readouterr().out
    )
    assert "left out 1" in json.loads((out / "summary.json").read_text())["notes"][-1]


def test_names_in_the_set_cannot_control_the_terminal(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "dog").rename(folder / "dog\x1b[2J\nnothing found")
    assert cli.main(["cleanse", str(folder), *QUICK, "--out", str(out)]) == 1
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "  class dog\\x1b[2J\\nnothing found: 1 of 12 samples" in text


# Several processes.


def test_two_processes_come_to_the_verdict_of_one(launch: "Launch", small_signs: "SmallSigns", tmp_path: Path) -> None:
    poisoned = poison_training_set(small_signs(500, 0), BadNets(rate=0.05, target=3, size=0.2), seed=0)
    clean = small_signs(100, 9)
    for name, samples in (("set", poisoned.samples), ("clean", clean)):
        np.savez(tmp_path / f"{name}.npz", x=samples.inputs, y=samples.labels)
    quick: dict[str, Any] = {"folds": 2, "base_steps": 545, "view_steps": 80, "network_steps": 30}
    settings = [f"--set={name}={value}" for name, value in quick.items()]
    out = tmp_path / "out"
    run = launch(
        "cleanse", str(tmp_path / "set.npz"), f"--clean={tmp_path / 'clean.npz'}", f"--out={out}", "--json", *settings
    )
    assert (out / "summary.json").exists(), run.stderr
    flagged = pq.read_table(out / "verdicts.parquet")["flagged"].to_numpy()
    alone = ConfusionTraining(**quick).inspect(poisoned.samples, clean)
    assert poisoned.poison[flagged].mean() == 1
    np.testing.assert_array_equal(flagged, alone.flagged)
    assert not (out / ".work").exists()
