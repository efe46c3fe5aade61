import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from foretaste import cli, io

if TYPE_CHECKING:
    from tests.conftest import CheckJson


@pytest.fixture
def sets(tmp_path: Path) -> tuple[str, str]:
    """Return a training and a test set: 2 classes that differ in brightness."""
    paths = []
    for name, n in (("train", 200), ("test", 50)):
        rng = np.random.default_rng(n)
        labels = np.arange(n) % 2
        images = rng.integers(0, 100, (n, 16, 16, 3)) + 120 * labels[:, None, None, None]
        paths.append(str(tmp_path / f"{name}.npz"))
        np.savez(paths[-1], x=images.astype(np.uint8), y=labels)
    return paths[0], paths[1]


def test_a_trained_model_is_saved_and_measured(
    sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], check_json: "CheckJson"
) -> None:
    training, test = sets
    out = tmp_path / "model"
    arguments = ["train", training, "--test", test, "--epochs", "2", "--seed", "3", "--json", "--out", str(out)]
    assert cli.main(arguments) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics == json.loads((out / "metrics.json").read_text())
    check_json(metrics)
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "model.onnx", "metrics.json"}

    session = onnxruntime.InferenceSession(out / "model.onnx")
    [scores] = session.run(None, {session.get_inputs()[0].name: io.load(test).inputs})
    assert scores.shape == (50, 2)


def test_without_json_the_figures_are_lines(
    sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", sets[0], "--epochs", "1", "--out", str(tmp_path / "model")]) == 0
    assert f"model: {tmp_path / 'model' / 'model.onnx'}" in capsys.readouterr().out


def test_an_unknown_net_is_bad_usage(sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", sets[0], "--net", "nonesuch", "--out", str(tmp_path / "model")]) == 4
    assert "nonesuch" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_what_was_left_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in "ab":
        for number in range(3):
            (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
            pixels = np.full((16, 16, 3), 80 * number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{number}.png")
    (tmp_path / "set" / "a" / "1.png").write_bytes(b"no image")
    arguments = ["train", str(tmp_path / "set"), "--epochs", "1", "--on-bad", "skip", "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    told = capsys.readouterr().err
    assert f"note: {tmp_path / 'set'}: left out 1; first " in told
    assert "1.png, which is not a PNG" in told
