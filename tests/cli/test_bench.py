import json
from pathlib import Path

import numpy as np
import pytest

from foretaste import cli
from foretaste.bench import on_ray, runner, specification
from foretaste.bench.records import Record
from foretaste.errors import ForetasteError
from foretaste.guards.strip import STRIP

SPEC = """
[[data]]
source = "train.npz"
test = 0.25
clean = 20
[[attacks]]
name = "badnets"
rates = [0.1]
set = { size = 0.25 }
[[networks]]
name = "compact-resnet"
set = { epochs = 1, width = 2, batch_size = 50 }
[[guards]]
name = "strip"
set = { overlays = 3 }
[doors.guards]
inputs = 30
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "train.npz", x=rng.integers(0, 256, (240, 16, 16, 3), dtype=np.uint8), y=np.arange(240) % 4)
    (tmp_path / "spec.toml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_specification_is_planned_measured_and_reported(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "run", "spec.toml", "--out", "out", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 cell to measure; about ")
    assert said.endswith("  train, badnets 10 %, compact-resnet, strip, seed 0\n")
    assert not (place / "out").exists()

    assert cli.main(["bench", "run", "spec.toml", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "[1/1] train, badnets 10 %, compact-resnet, strip, seed 0: " in said
    assert "queries per image 4.00" in said

    assert cli.main(["bench", "run", "spec.toml", "--out", "out", "--dry-run"]) == 0
    assert capsys.readouterr().out == "0 cells to measure, 1 measured already\n"

    assert cli.main(["bench", "report", "out"]) == 0
    assert capsys.readouterr().out == "report: out/report.html\n"
    assert {path.name for path in (place / "out").iterdir()} >= {
        "report.html",
        "report.md",
        "report.tex",
        "results.csv",
    }

    # What was measured tells the next plan how long things take here.
    known = json.loads((place / "cache/bench-seconds.json").read_text())
    assert set(known) == {"guards/strip", "train/compact-resnet"}


def test_a_cell_that_fails_makes_the_exit_code_2(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise ForetasteError("no such luck")

    monkeypatch.setattr(STRIP, "calibrate", fail)
    assert cli.main(["bench", "run", "spec.toml", "--out", "out"]) == 2
    said = capsys.readouterr()
    assert "failed: no such luck" in said.out
    assert "1 of 1 cells failed" in said.err


def test_bad_input_is_refused_before_anything_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "spec.toml").write_text(SPEC.replace("strip", "strap").replace("badnets", "goodnets"))
    assert cli.main(["bench", "run", "spec.toml", "--out", "out"]) == 4
    error = capsys.readouterr().err
    first, *others = error.splitlines()
    assert first == "foretaste: error: 2 errors in spec.toml"
    assert [line.split(":")[0] for line in others] == ["  line 7", "  line 14"], "each on a line of its own"
    assert "line 7: there is no attack 'goodnets'" in error
    assert "line 14: there is no guard 'strap'" in error
    assert not (place / "out").exists()
    assert cli.main(["bench", "run", "nowhere.toml", "--out", "out"]) == 4
    assert cli.main(["bench", "report", "nowhere"]) == 4
    assert "holds no plan.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        ("--ray spec.toml --out out", "local"),
        ("spec.toml --out out --ray", "local"),
        ("spec.toml --ray --out out", "local"),
        ("--ray local spec.toml --out out", "local"),
        ("--ray auto spec.toml --out out", "auto"),
        ("spec.toml --ray head:6379 --out out", "head:6379"),
        ("--ray ray://head:10001 spec.toml --out out", "ray://head:10001"),
        ("--ray=elsewhere spec.toml --out out", "elsewhere"),
        ("spec.toml --out out", None),
    ],
)
def test_the_address_of_a_cluster_may_be_left_out(
    place: Path, arguments: str, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str | None] = []

    def on_cluster(wanted: object, store: object, address: str, **more: object) -> list[Record]:
        ran.append(address)
        return []

    def here(*what: object, **more: object) -> list[Record]:
        ran.append(None)
        return []

    monkeypatch.setattr(on_ray, "run", on_cluster)
    monkeypatch.setattr(runner, "run", here)
    assert cli.main(["bench", "run", *arguments.split()]) == 0
    assert ran == [address]


def test_help_and_guide_name_every_shipped_specification(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "run", "--help"]) == 0
    told = capsys.readouterr().out
    guide = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
    for name in specification.shipped():
        assert name in told
        assert f"| `{name}` |" in guide
