"""``foretaste inspect`` around an inspector that is quick, and what it refuses."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from foretaste import cli, io
from foretaste.guards.neo import Registry
from foretaste.guards.trigger import Trigger
from foretaste.inspectors import INSPECTORS, Evidence, Finding, Reconstruction, Subject
from foretaste.nets import build
from foretaste.nets.export import save
from foretaste.progress import OnProgress
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.conftest import CheckJson, CheckSarif

SIDE = 16
MODEL = """
def classify(images):
    return (images.mean(axis=(1, 2, 3)) > 128).astype(int)
"""
TRIGGER = Trigger(
    patch=np.full((2, 2, 3), 255, dtype=np.uint8),
    mask=np.ones((2, 2), dtype=np.bool_),
    position=(3, 4),
    anywhere=False,
    target=1,
    flip_rate=0.9,
    n_confirmed=10,
)


@dataclass(frozen=True, kw_only=True)
class Hunch:
    """Says what it was told to say."""

    name: ClassVar[str] = "hunch"
    summary: ClassVar[str] = "a hunch"
    needs_weights: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 4
    fewest_classes: ClassVar[int] = 2

    p: float = 0.001

    def look(self, subject: Subject, clean: Samples | None, *, seed: int, on_progress: OnProgress) -> Finding:
        assert clean is not None
        evidence = tuple(
            Evidence(target=label, statistic=3.0 - label, p_value=p, reason="It looks <b>odd</b>.")
            for label, p in ((1, self.p), (0, 1.0))
        )
        before = clean.inputs[:2]
        after = np.array(before)
        after[:, 3:5, 4:6] = 255
        reconstruction = Reconstruction(
            kind="patch", target=1, flip_rate=0.9, n_confirmed=10, before=before, after=after, patch=TRIGGER
        )
        return Finding(evidence=evidence, reconstructions=(reconstruction,), notes=("A note.",))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(INSPECTORS, "hunch", Hunch)
    (tmp_path / "brightness_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def clean(tmp_path: Path) -> str:
    labels = np.arange(20) % 2
    images = np.broadcast_to((60 + 130 * labels)[:, None, None, None], (20, SIDE, SIDE, 3)).astype(np.uint8)
    np.savez(tmp_path / "clean.npz", x=images, y=labels)
    return str(tmp_path / "clean.npz")


def run(clean: str, out: Path, *more: str) -> int:
    return cli.main(
        ["inspect", "brightness_model:classify", "--clean", clean, "--method", "hunch", "--out", str(out), *more]
    )


def test_a_backdoor_is_reported_with_its_trigger(
    clean: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    check_json: "CheckJson",
    check_sarif: "CheckSarif",
) -> None:
    out, log = tmp_path / "out", tmp_path / "found.sarif"
    assert run(clean, out, "--sarif", str(log)) == 1
    told = capsys.readouterr().out
    assert told.startswith("backdoor found (p = 0.001)")
    assert f"trigger {TRIGGER.id}: 2 x 2 pixels at row 3, column 4" in told
    summary = json.loads((out / "summary.json").read_text())
    assert summary["poisoned"] is True
    assert (summary["n_samples"], summary["n_flagged"], summary["clean_size"]) == (1, 1, 20)
    assert summary["suspect_classes"] == [{"label": 1, "name": "1"}]
    assert summary["p_value"] == 0.001
    assert [entry["target"] for entry in summary["evidence"]] == [1, 0]
    assert [trigger.id for trigger in Registry.load(out / "triggers")] == [TRIGGER.id]
    page = (out / "report.html").read_text()
    assert "The model has a backdoor" in page
    assert "It looks &lt;b&gt;odd&lt;/b&gt;." in page
    assert {path.name for path in out.iterdir()} == {"summary.json", "report.html", "triggers"}
    check_json(summary)
    check_json(json.loads((out / "triggers" / "triggers.json").read_text()))
    results = check_sarif(json.loads(log.read_text()))["results"]
    assert [result["ruleId"] for result in results] == ["backdoored-class", "trigger"]
    place = {"fullyQualifiedName": "brightness_model:classify", "kind": "resource"}
    assert all(result["locations"] == [{"logicalLocations": [place]}] for result in results)


def test_nothing_found_is_exit_code_0_and_json_is_all_that_is_said(
    clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(clean, out, "--set", "p=0.3", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["settings"] == {"p": 0.3}
    assert summary["triggers"] == []
    assert "No backdoor found in the model." in (out / "report.html").read_text()


def test_the_exit_code_follows_the_policy(clean: str, tmp_path: Path) -> None:
    assert run(clean, tmp_path / "out", "--fail-on", "never") == 0
    assert run(clean, tmp_path / "out", "--fail-on", "0.5") == 1


def test_the_results_of_an_earlier_run_are_replaced_and_what_is_read_is_not(
    clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(clean, out) == 1
    assert run(clean, out, "--set", "p=0.3") == 0
    assert {path.name for path in out.iterdir()} == {"summary.json", "report.html", "triggers"}
    assert len(Registry.load(out / "triggers")) == 0
    assert run(clean, tmp_path) == 1  # beside its input
    capsys.readouterr()
    assert run(str(tmp_path / "summary.json"), tmp_path) == 4
    assert "would be overwritten" in capsys.readouterr().err


def test_the_clean_set_may_have_other_columns(clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    io.write_parquet(io.load(clean), tmp_path / "clean.parquet")
    table = pq.read_table(tmp_path / "clean.parquet")
    pq.write_table(table.append_column("target", table["label"]), tmp_path / "two.parquet")
    assert run(str(tmp_path / "two.parquet"), tmp_path / "out") == 4
    assert "--label-column" in capsys.readouterr().err
    assert run(str(tmp_path / "two.parquet"), tmp_path / "out", "--label-column", "target") == 1


def test_grey_clean_images_become_colour_beside_a_colour_model(clean: str, tmp_path: Path) -> None:
    net = build("convnet", (SIDE, SIDE, 3), ["0", "1"], generator=torch.Generator().manual_seed(0), width=2)
    save(net, tmp_path / "model.safetensors")
    with np.load(clean) as arrays:
        np.savez(tmp_path / "grey.npz", x=arrays["x"][..., :1], y=arrays["y"])
    arguments = ["--clean", str(tmp_path / "grey.npz"), "--method", "hunch", "--out", str(tmp_path / "out")]
    assert cli.main(["inspect", str(tmp_path / "model.safetensors"), *arguments]) == 1


def test_a_run_that_is_refused_leaves_the_results_of_the_one_before(clean: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(clean, out) == 1
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert run(clean, out, "--false-alarm-rate", "2") == 4
    assert run(clean, out, "--method", "neural-cleanse") == 4
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_class_names_cannot_control_the_terminal(
    clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape, names = (SIDE, SIDE, 3), ["0", "\x1b[2Jnothing found"]
    net = build("convnet", shape, names, generator=torch.Generator().manual_seed(0), width=2)
    with torch.no_grad():
        net.head.weight.zero_()
    save(net, tmp_path / "model.safetensors")
    with np.load(clean) as arrays:
        named = np.array(names)
        np.savez(tmp_path / "named.npz", x=arrays["x"], y=arrays["y"], classes=named)
    arguments = ["--clean", str(tmp_path / "named.npz"), "--method", "hunch", "--out", str(tmp_path / "out")]
    assert cli.main(["inspect", str(tmp_path / "model.safetensors"), *arguments]) == 1
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert r"\x1b[2Jnothing found: It looks" in told


def test_the_rate_decides(clean: str, tmp_path: Path) -> None:
    assert run(clean, tmp_path / "out", "--set", "p=0.03", "--false-alarm-rate", "0.01") == 0
    assert run(clean, tmp_path / "out", "--set", "p=0.03") == 1


def refused(arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return exit code and message of a run that must write nothing."""
    code = cli.main(["inspect", *arguments, "--out", str(out)])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert not out.exists()
    return code, told


def test_bad_input_is_one_sentence_and_leaves_nothing(
    clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, told = refused(["brightness_model:classify", "--clean", clean, "--method", "mm-bd"], out, capsys)
    assert (code, "needs the model's weights" in told) == (4, True)
    code, told = refused(["brightness_model:classify", "--method", "hunch"], out, capsys)
    assert (code, "give clean images" in told) == (4, True)
    with np.load(clean) as arrays:
        np.savez(tmp_path / "small.npz", x=arrays["x"][:3], y=arrays["y"][:3])
        np.savez(tmp_path / "wrong.npz", x=arrays["x"], y=1 - arrays["y"])
    small = ["brightness_model:classify", "--clean", str(tmp_path / "small.npz"), "--method", "hunch"]
    code, told = refused(small, out, capsys)
    assert (code, "needs 4 clean images or more, not 3" in told) == (4, True)
    wrong = ["brightness_model:classify", "--clean", str(tmp_path / "wrong.npz"), "--method", "hunch"]
    code, told = refused(wrong, out, capsys)
    assert (code, "gets 0% of the clean set right" in told) == (4, True)
    code, told = refused(["brightness_model:classify", "--clean", clean, "--method", "nose"], out, capsys)
    assert (code, "no inspector 'nose'" in told) == (4, True)
    (tmp_path / "empty").mkdir()
    null = ["brightness_model:classify", "--clean", clean, "--method", "hunch", "--null", str(tmp_path / "empty")]
    code, told = refused(null, out, capsys)
    assert (code, "holds no .onnx" in told) == (4, True)


def test_nan_weights_are_a_failed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = build("convnet", (SIDE, SIDE, 3), list("abcd"), generator=torch.Generator().manual_seed(0), width=2)
    with torch.no_grad():
        net.head.bias[0] = torch.nan
    save(net, tmp_path / "nan.safetensors")
    code, told = refused([str(tmp_path / "nan.safetensors"), "--method", "mm-bd"], tmp_path / "out", capsys)
    assert (code, "NaN or infinite" in told) == (2, True)


def test_list_names_the_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "--list"]) == 0
    names: list[Any] = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert set(names) >= {"all", "debackdoor", "final-layer", "mm-bd", "neural-cleanse"}
