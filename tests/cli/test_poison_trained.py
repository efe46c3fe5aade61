"""``foretaste poison`` with attacks that have a trained part."""

from pathlib import Path

import numpy as np
import pytest
import torch

from foretaste import cli, io
from foretaste.nets import build
from foretaste.nets.export import load, save

ISSBA = ["--attack", "issba", "--rate", "0.1", "--set", "steps=2"]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a set of 100 images in 4 classes, as .npz, with an empty cache."""
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(40, 200, (100, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=images, y=np.arange(100) % 4)
    return tmp_path / "set.npz"


def test_test_inputs_are_stamped_by_what_was_trained_for_the_training_set(source: Path, tmp_path: Path) -> None:
    poisoned, stamped = tmp_path / "poisoned", tmp_path / "stamped"
    assert cli.main(["poison", str(source), *ISSBA, "--out", str(poisoned)]) == 0
    before, after = io.load(source), io.load(poisoned / "train.parquet")
    poison = io.read_truth(poisoned / "truth.json").mark(after).poison
    assert poison.sum() == 10

    options = ["--at", "test", "--attack-from", str(poisoned), "--rate", "1", "--out", str(stamped)]
    assert cli.main(["poison", str(source), *options]) == 0
    inputs = io.load(stamped / "test.parquet")
    np.testing.assert_array_equal(inputs.labels, before.labels)
    assert np.abs(inputs.inputs[poison].astype(int) - after.inputs[poison]).max() <= 1
    assert (stamped / "attack.safetensors").read_bytes() == (poisoned / "attack.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_bytes(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for out in ("a", "b"):
        monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / f"cache {out}"))
        assert cli.main(["poison", str(source), *ISSBA, "--out", str(tmp_path / out)]) == 0
    for name in ("train.parquet", "truth.json", "attack.toml", "attack.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_attack_on_a_model_leaves_the_model(source: Path, tmp_path: Path) -> None:
    classes = io.load(source).classes
    save(build(None, (16, 16, 3), classes, generator=torch.Generator().manual_seed(0)), tmp_path / "given.safetensors")
    options = ["--attack", "trojan-nn", "--set", "steps=2", "--set", "training_steps=1"]
    options += ["--out", str(tmp_path / "out"), "--set"]
    assert cli.main(["poison", str(source), *options, f"model={tmp_path / 'given.safetensors'}"]) == 0
    assert load(tmp_path / "out" / "trojaned.safetensors").classes == classes


def test_a_model_is_not_replaced_by_what_is_made_of_it(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "trojaned.safetensors"
    save(build(None, (16, 16, 3), io.load(source).classes, generator=torch.Generator()), given)
    before = given.read_bytes()
    options = ["--attack", "trojan-nn", "--set", f"model={given}", "--out", str(tmp_path)]
    assert cli.main(["poison", str(source), *options]) == 4
    assert "holds trojaned.safetensors, which foretaste did not write" in capsys.readouterr().err
    assert given.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "exit_code", "reason"),
    [
        ([], 4, "either --attack NAME"),
        (["--attack", "issba", "--attack-from", "somewhere"], 4, "either --attack NAME"),
        (["--attack-from", "somewhere"], 4, "holds no attack.toml"),
        (["--attack-from", "somewhere", "--set", "steps=2"], 4, "leave --set"),
        (["--attack-from", "somewhere", "--target", "2"], 4, "leave --set"),
        (["--attack", "issba", "--at", "test"], 4, "--attack-from"),
        (["--attack", "issba", "--rate", "0.9"], 4, "only 75"),
        (["--attack", "label-consistent", "--rate", "0.3"], 4, "only 25"),
        (["--attack", "sleeper-agent", "--set", "source=9"], 4, "4 classes"),
        (["--attack", "malware-unconstrained"], 4, "feature vectors only"),
        (["--attack", "trojan-nn"], 4, "say which model"),
        (["--attack", "trojan-nn", "--set", "model=nowhere.safetensors"], 2, "there is no file"),
    ],
)
def test_bad_usage_writes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], exit_code: int, reason: str
) -> None:
    assert cli.main(["poison", str(source), *options, "--out", str(tmp_path / "out")]) == exit_code
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob("cache/attacks/*"))


@pytest.mark.parametrize("content", ["attack", 'attack = "issba"', 'attack = "issba"\n[settings]\nbits = "many"'])
def test_a_damaged_recipe_is_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "attack.toml").write_text(content)
    assert cli.main(["poison", str(source), "--attack-from", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert f"cannot read {tmp_path / 'attack.toml'}" in capsys.readouterr().err
