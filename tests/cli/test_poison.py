import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from foretaste import cli, io

if TYPE_CHECKING:
    from tests.conftest import CheckJson


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder's worth of 200 grey images in 4 classes, as .npz."""
    rng = np.random.default_rng(0)
    path = tmp_path / "set.npz"
    np.savez(path, x=rng.integers(40, 200, (200, 8, 8, 1), dtype=np.uint8), y=np.arange(200) % 4)
    return path


def test_a_poisoned_training_set_comes_with_its_truth_and_recipe(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "poisoned"
    options = ["--attack", "badnets", "--rate", "0.05", "--target", "3", "--set", "size=0.25"]
    options += ["--set", "place=random", "--seed", "7"]
    assert cli.main(["poison", str(source), *options, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"10 poison samples among 200 in {out / 'train.parquet'}\n"

    before, after = io.load(source), io.load(out / "train.parquet")
    marks = io.read_truth(out / "truth.json").mark(after)
    changed = (before.inputs != after.inputs).any(axis=(1, 2, 3))
    assert marks.poison.sum() == 10
    assert (changed == marks.poison).all()
    assert (after.labels[marks.poison] == 3).all()
    assert (marks.original_labels == before.labels).all()
    assert tomllib.loads((out / "attack.toml").read_text()) == {
        "attack": "badnets",
        "at": "train",
        "seed": 7,
        "source": str(source),
        "classes": ["0", "1", "2", "3"],
        "settings": {"rate": 0.05, "target": 3, "size": 0.25, "place": "random", "alpha": 1.0},
    }


def test_test_inputs_keep_their_labels(source: Path, tmp_path: Path, check_json: "CheckJson") -> None:
    out = tmp_path / "stamped"
    options = ["--at", "test", "--attack", "badnets", "--rate", "0.2"]
    assert cli.main(["poison", str(source), *options, "--out", str(out)]) == 0
    before, after = io.load(source), io.load(out / "test.parquet")
    trojaned = io.read_truth(out / "truth.json").mark(after).trojaned
    assert (before.labels == after.labels).all()
    assert trojaned.sum() == 30  # a fifth of the 150 inputs outside the target class
    truth = json.loads((out / "truth.json").read_text())
    assert truth.keys() == {"schema", "trojaned"}
    check_json(truth)
    assert tomllib.loads((out / "attack.toml").read_text())["stamped"] == 0.2


def test_the_rate_of_a_training_set_is_none_of_test_inputs(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--attack", "badnets", "--at", "test", "--set", "rate=0.9", "--out", str(tmp_path / "out")]
    assert cli.main(["poison", str(source), *options]) == 4
    assert "say by --rate how many inputs to stamp" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_same_seed_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        cli.main(["poison", str(source), "--attack", "blend", "--rate", "0.1", "--out", str(tmp_path / out)])
    for name in ("train.parquet", "truth.json", "attack.toml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_poisoned_set_can_be_poisoned_again(source: Path, tmp_path: Path, check_json: "CheckJson") -> None:
    first, both = tmp_path / "first", tmp_path / "both"
    cli.main(["poison", str(source), "--attack", "badnets", "--rate", "0.1", "--target", "3", "--out", str(first)])
    again = ["--attack", "adaptive-blend", "--rate", "0.1", "--set", "cover_rate=0.05", "--truth"]
    again += [str(first / "truth.json"), "--out", str(both)]
    assert cli.main(["poison", str(first / "train.parquet"), *again]) == 0

    before, middle, after = io.load(source), io.load(first / "train.parquet"), io.load(both / "train.parquet")
    for folder in (first, both):
        check_json(json.loads((folder / "truth.json").read_text()))
    truth, earlier = io.read_truth(both / "truth.json"), io.read_truth(first / "truth.json")
    assert truth.attacks.keys() == {"badnets", "adaptive-blend"}
    assert truth.attacks["badnets"] == earlier.poison
    assert truth.attacks["adaptive-blend"] == (truth.poison | truth.cover) - earlier.poison
    # A tenth and a twentieth of the 180 samples that the first attack left.
    assert (len(truth.poison), len(truth.cover)) == (20 + 18, 9)
    marks = truth.mark(after)
    assert (marks.original_labels == before.labels).all()
    mine = earlier.mark(after).poison
    assert (after.inputs[mine] == middle.inputs[mine]).all()
    assert (after.labels[mine] == 3).all()
    changed = (after.inputs != before.inputs).any(axis=(1, 2, 3))
    assert (changed == (marks.poison | marks.cover)).all()


def test_test_inputs_have_no_earlier_truth(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--attack", "badnets", "--at", "test", "--truth", "truth.json", "--out", str(tmp_path / "out")]
    assert cli.main(["poison", str(source), *options]) == 4
    assert "leave it out with --at test" in capsys.readouterr().err


def test_the_truth_of_test_inputs_is_none_of_a_training_set(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    badnets, stamped = ["--attack", "badnets", "--rate", "0.1", "--out"], tmp_path / "stamped"
    assert cli.main(["poison", str(source), "--at", "test", *badnets, str(stamped)]) == 0
    again = [str(stamped / "test.parquet"), "--truth", str(stamped / "truth.json"), *badnets, str(tmp_path / "out")]
    assert cli.main(["poison", *again]) == 4
    assert "about test inputs, not about a training set" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_does_not_take_the_truth_of_another(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    badnets = ["--attack", "badnets", "--rate", "0.1", "--out", str(out)]
    assert cli.main(["poison", str(source), *badnets]) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert cli.main(["poison", str(source), "--at", "test", *badnets]) == 4
    assert "holds train.parquet, whose truth.json would be lost" in capsys.readouterr().err
    assert cli.main(["poison", str(out / "train.parquet"), "--truth", str(out / "truth.json"), *badnets]) == 4
    assert "train.parquet would be overwritten" in capsys.readouterr().err
    assert cli.main(["poison", str(source), "--truth", str(out / "truth.json"), *badnets]) == 4
    assert "truth.json would be overwritten" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    # The same run again, with another attack, replaces all that the first left, and nothing else.
    for name in ("attack.safetensors", "trojaned.safetensors", "model.safetensors"):
        (out / name).write_bytes(b"trained for the first attack, or by somebody else")
    assert cli.main(["poison", str(source), "--attack", "blend", "--rate", "0.1", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"train.parquet", "truth.json", "attack.toml", "model.safetensors"}
    assert tomllib.loads((out / "attack.toml").read_text())["attack"] == "blend"


def test_a_recipe_names_its_files_from_anywhere(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "trigger.png")
    monkeypatch.chdir(tmp_path)
    blend = ["--attack", "blend", "--rate", "0.1", "--set", "picture=trigger.png", "--out", "poisoned"]
    assert cli.main(["poison", str(source), *blend]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = ["--at", "test", "--attack-from", "../poisoned", "--out", "stamped"]
    assert cli.main(["poison", str(source), *again]) == 0


def folder_of(classes: list[str], root: Path) -> Path:
    """Write ten images of each class into folders of their names, as an image-folder data set."""
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(40, 200, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_an_attack_keeps_its_classes_on_inputs_that_lack_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, inputs = folder_of(["apple", "bus", "car"], tmp_path / "a"), folder_of(["bus", "car"], tmp_path / "b")
    tact = ["--attack", "tact", "--target", "bus", "--set", "source=2", "--set", "cover_classes=0", "--rate", "0.1"]
    tact += ["--set", "cover_rate=0.1"]
    assert cli.main(["poison", str(training), *tact, "--out", str(tmp_path / "poisoned")]) == 0
    again = ["--attack-from", str(tmp_path / "poisoned"), "--out", str(tmp_path / "out")]
    assert cli.main(["poison", str(inputs), "--at", "test", "--rate", "1", *again]) == 0
    after = io.load(tmp_path / "out" / "test.parquet")
    trojaned = io.read_truth(tmp_path / "out" / "truth.json").mark(after).trojaned
    assert after.classes == ("apple", "bus", "car")
    assert [after.classes[label] for label in after.labels[trojaned]] == ["car"] * 10

    # A training set of other classes is another set, and so are inputs of a class that it has not.
    assert cli.main(["poison", str(inputs), "--attack-from", str(tmp_path / "poisoned"), "--out", str(tmp_path)]) == 4
    assert "other classes" in capsys.readouterr().err
    others = folder_of(["bus", "dog"], tmp_path / "c")
    assert cli.main(["poison", str(others), "--at", "test", *again]) == 4
    assert "the attack has no class dog" in capsys.readouterr().err


def test_cover_is_counted(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blend = ["--attack", "adaptive-blend", "--rate", "0.05", "--out", str(tmp_path / "out"), "--set"]
    assert cli.main(["poison", str(source), *blend, "cover_rate=0.1"]) == 0
    assert capsys.readouterr().out.startswith("10 poison samples and 20 cover samples among 200 in ")


def test_the_target_may_be_a_class_name(tmp_path: Path) -> None:
    source = tmp_path / "set.parquet"
    samples = io.draw_signs(64)
    io.write_parquet(samples, source)
    out = tmp_path / "out"
    options = ["--attack", "badnets", "--rate", "0.1", "--target", "no entry"]
    assert cli.main(["poison", str(source), *options, "--out", str(out)]) == 0
    after = io.load(out / "train.parquet")
    poison = io.read_truth(out / "truth.json").mark(after).poison
    assert {after.classes[label] for label in after.labels[poison]} == {"no entry"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--attack", "badnets", "--target", "4"], "--target 4 is neither a class name nor a number below 4"),
        (["--attack", "badnets", "--target", "-1"], "--target -1 is neither"),
        (["--attack", "badnets", "--rate", "1.5"], "rate must be in (0, 1], not 1.5"),
        (["--attack", "badnets", "--rate", "nan"], "rate must be in (0, 1], not nan"),
        (["--attack", "badnets", "--rate", "0.001"], "leaves no sample to poison"),
        (["--attack", "badnets", "--rate", "0.9"], "needs 180 samples to poison, but only 150 can be used"),
        (["--attack", "badnets", "--rate", "0.1", "--set", "rate=0.2"], "rate is given twice"),
        (["--attack", "badnets-all-to-all", "--target", "1"], "the attack badnets-all-to-all has no target"),
        (["--attack", "adaptive-blend", "--set", "cover_rate=0.002"], "the rate leaves no sample as cover"),
        (["--attack", "blend", "--set", "alpha=0.001"], "the trigger changes none of the samples"),
        (["--attack", "blend", "--set", "alpha=0.001", "--at", "test"], "the trigger changes none of the samples"),
    ],
)
def test_what_does_not_fit_the_set_is_bad_usage(
    options: list[str], complaint: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["poison", str(source), *options, "--out", str(tmp_path / "out")]) == 4
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("badnets", {"place": "random"}),
        ("tact", {"source": 3, "cover_classes": (1, 2)}),
        ("refool", {"kinds": ("ghost",), "intensity": (0.1, 0.2), "pictures": Path("pictures")}),
        ("adaptive-patch", {"tested": ("gem", "corners"), "opacities": (0.1, 0.2, 0.3, 0.4)}),
        ("adaptive-k-way", {}),
        ("wanet", {"grid": 5}),
    ],
)
def test_an_attack_is_read_back_from_its_recipe(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    from foretaste.attacks import ATTACKS
    from foretaste.cli.poison import RECIPE, as_toml, names, read_attack

    attack = ATTACKS[name](**settings)
    values = {field: getattr(attack, field) for field in names(type(attack))}
    (tmp_path / RECIPE).write_text(as_toml({"attack": name}, values), encoding="utf-8")
    assert read_attack(tmp_path) == (name, attack, None)


def test_the_list_names_every_attack(capsys: pytest.CaptureFixture[str]) -> None:
    from foretaste.attacks import ATTACKS

    assert cli.main(["poison", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} >= set(ATTACKS)
    assert all(len(line.split()) > 3 for line in lines)


def test_imbalance_and_label_noise_come_before_the_poison_and_are_recorded(
    source: Path, tmp_path: Path, check_json: "CheckJson"
) -> None:
    out = tmp_path / "noisy"
    options = ["--attack", "badnets", "--rate", "0.05", "--imbalance", "10", "--label-noise", "0.1", "--seed", "3"]
    assert cli.main(["poison", str(source), *options, "--out", str(out)]) == 0
    before, after = io.load(source), io.load(out / "train.parquet")
    assert len(after) == 50 + 23 + 11 + 5
    truth = io.read_truth(out / "truth.json")
    rows = after.ids.astype(int)
    check_json(json.loads((out / "truth.json").read_text()))
    noisy = np.isin(after.ids, list(truth.noisy_labels))
    assert noisy.sum() == 9
    assert all(before.labels[int(name)] == label for name, label in truth.noisy_labels.items())
    marks = truth.mark(after)
    assert marks.poison.sum() == 4
    assert (marks.original_labels[~noisy] == before.labels[rows][~noisy]).all()
    recipe = tomllib.loads((out / "attack.toml").read_text())
    assert (recipe["imbalance"], recipe["label_noise"]) == (10.0, 0.1)


def test_noise_is_not_added_to_what_is_poisoned_already(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first"
    assert cli.main(["poison", str(source), "--attack", "badnets", "--rate", "0.05", "--out", str(first)]) == 0
    for extra in (["--truth", str(first / "truth.json")], ["--at", "test"]):
        options = ["--attack", "badnets", "--label-noise", "0.1", *extra, "--out", str(tmp_path / "second")]
        assert cli.main(["poison", str(source), *options]) == 4
        assert "not poisoned yet" in capsys.readouterr().err
    assert cli.main(["poison", str(source), "--attack", "badnets", "--imbalance", "0", "--out", str(first)]) == 4
