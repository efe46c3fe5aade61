"""``foretaste cleanse`` around a cleanser that is quick: black images are poison."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from foretaste import cli, io
from foretaste.classifiers.classifier import Classifier
from foretaste.cleansers import CLEANSERS
from foretaste.cleansers.verdict import ClassEvidence, Verdict
from foretaste.errors import ForetasteError
from foretaste.guards import neo
from foretaste.guards.neo.registry import Registry
from foretaste.guards.trigger import Trigger
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples


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
    poisoned: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = io.load(poisoned).ids
    truth = tmp_path / "truth.json"
    io.write_truth(io.Truth(poison=frozenset(ids[[3, 8]].tolist())), truth)
    assert cli.main(["cleanse", poisoned, *METHOD, "--truth", str(truth), "--out", str(out)]) == 1
    assert "against the truth: 50.00% of the poison found, 1.72% false alarms" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["tpr"] == 0.5
    assert summary["fpr"] == pytest.approx(1 / 58)


def test_the_truth_about_test_inputs_is_refused(
    poisoned: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.json"
    io.write_truth(io.Truth(trojaned=frozenset(io.load(poisoned).ids[:1].tolist())), truth)
    assert cli.main(["cleanse", poisoned, *METHOD, "--truth", str(truth), "--out", str(out)]) == 4
    assert "is about test inputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--method", "nonesuch"], "nonesuch"),
        ([*METHOD, "--set", "limits=3"], "there is no setting 'limits'; known: limit, pause"),
        ([*METHOD, "--set", "limit=dark"], "--set limit=dark: input should be a valid number"),
        ([*METHOD, "--seed", "-1"], "'--seed'"),
        ([*METHOD, "--on-bad", "panic"], "'--on-bad'"),
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
    poisoned: str, out: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(neo, "learn", black_trigger)
    assert cli.main(["cleanse", poisoned, *METHOD, "--model", model, "--out", str(out)]) == 1
    text = capsys.readouterr().out
    assert "2 x 2 pixels at row 3, column 3, forces 1 (95.00% of 20 clean images); in 2 samples" in text
    assert "58 samples that passed stood in for it to reconstruct triggers" in text
    (trigger,) = Registry.load(out / "triggers")
    summary = json.loads((out / "summary.json").read_text())
    assert [(one["id"], one["n_found"]) for one in summary["triggers"]] == [(trigger.id, 2)]
    assert f"Trigger {trigger.id}" in (out / "report.html").read_text()


def test_without_poison_no_trigger_is_looked_for(
    tmp_path: Path, out: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neo, "learn", None)
    assert cli.main(["cleanse", save(tmp_path / "set.npz", []), *METHOD, "--model", model, "--out", str(out)]) == 0
    assert not (out / "triggers").exists()


def test_a_model_that_fails_costs_the_trigger_but_not_the_verdict(
    poisoned: str, out: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> Registry:
        raise ForetasteError("the model is down")

    monkeypatch.setattr(neo, "learn", fail)
    assert cli.main(["cleanse", poisoned, *METHOD, "--model", model, "--out", str(out)]) == 1
    assert "note: no trigger could be reconstructed: the model is down" in capsys.readouterr().out
    assert len(io.load(out / "quarantine.parquet")) == 2


def test_the_list_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cleanse", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} >= set(CLEANSERS)
