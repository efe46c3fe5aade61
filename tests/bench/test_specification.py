from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from foretaste import attacks, io
from foretaste.bench import case, specification
from foretaste.bench.case import DataSets
from foretaste.bench.cell import DataSet
from foretaste.bench.specification import Specification
from foretaste.bench.toml_lines import line_at, lines_of
from foretaste.errors import ForetasteError, UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Samples

HEAD = '[[data]]\nsource = "train.npz"\ntest = 0.25\nclean = 10\n'
NET = '[[networks]]\nname = "compact-resnet"\n'
ATTACK = '[[attacks]]\nname = "badnets"\n'
DEFENCE = '[[cleansers]]\nname = "confusion-training"\n'

Read = Callable[[str], Specification]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return what reads a specification from its text, in a folder with 80 images and as many feature vectors."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("train.npz", x=rng.integers(0, 256, (80, 16, 16, 3), dtype=np.uint8), y=np.arange(80) % 4)
    np.savez("features.npz", x=rng.normal(0, 1, (80, 5)).astype(np.float32), y=np.arange(80) % 4)

    def read(text: str) -> Specification:
        Path("spec.toml").write_text(text)
        return specification.read(Path("spec.toml"), DataSets())

    return read


def complaints(read: Read, text: str) -> list[str]:
    with pytest.raises(UsageError) as error:
        read(text)
    first, *rest = str(error.value).splitlines()
    assert first.endswith("in spec.toml")
    return [line.strip() for line in rest]


def test_the_cells_are_the_product_of_what_is_listed(read: Read) -> None:
    text = (
        "seeds = [0, 7]\n" + HEAD + "limit = 40\n" + ATTACK + "rates = [0.05, 0.1]\n" + '[[attacks]]\nname = "none"\n'
    )
    text += NET + '[[networks]]\nname = "convnet"\nlabel = "wide"\nset = { width = 32 }\n'
    text += DEFENCE + 'only = { networks = ["wide"] }\n[[inspectors]]\nname = "mm-bd"\n'
    wanted = read(text)
    assert len(wanted.cells) == 3 * 2 * (
        1 + 2
    )  # attacks and rates x seeds x (cleansers on one network, inspectors on both)
    assert len({cell.key for cell in wanted.cells}) == len(wanted.cells)
    assert {cell.rate for cell in wanted.cells} == {0.05, 0.1, None}
    assert wanted.cells[0].data.title == "train (40 of 60)"
    one = wanted.cells[0]
    assert one.title() == "train (40 of 60), badnets 5 %, compact-resnet, mm-bd, seed 0"


def test_names_follow_from_all_that_a_cell_depends_on_and_from_nothing_else(read: Read) -> None:
    text = HEAD + ATTACK + NET + DEFENCE
    [cell] = read(text).cells
    assert read(f"# a comment\n{text}").cells[0].key == cell.key
    assert read(text.replace(DEFENCE, f'{DEFENCE}label = "ours"\n')).cells[0].key == cell.key
    assert read(text.replace(NET, f"{NET}set = {{ epochs = 10 }}\n")).cells[0].key == cell.key  # the default
    other_net = read(text.replace(NET, f"{NET}set = {{ epochs = 11 }}\n")).cells[0]
    assert other_net.key != cell.key
    assert other_net.victim_key != cell.victim_key
    assert other_net.set_key == cell.set_key
    for change in ("seeds = [1]\n", "[[imperfections]]\nlabel_noise = 0.1\n"):
        other = read(f"{change}{text}" if change.startswith("seeds") else f"{text}{change}").cells[0]
        assert len({other.key, cell.key}) == len({other.set_key, cell.set_key}) == 2
    rng = np.random.default_rng(1)
    np.savez("train.npz", x=rng.integers(0, 256, (80, 16, 16, 3), dtype=np.uint8), y=np.arange(80) % 4)
    assert read(text).cells[0].key != cell.key


def test_files_that_settings_name_and_code_of_others_are_known_by_their_content(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    picture = '[[attacks]]\nname = "blend"\nset = { picture = "picture.png" }\n'
    text = HEAD + picture + NET + '[[cleansers]]\nname = "other_methods:Other"\n'
    code = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Other:\n    def inspect(self): ...\n"
    keys = []
    for colour, comment in ((0, ""), (255, ""), (255, "# another version\n")):
        Image.new("RGB", (8, 8), (colour, 0, 0)).save("picture.png")
        Path("other_methods.py").write_text(code + comment)
        [cell] = read(text).cells
        keys.append((cell.set_key, cell.victim_key, cell.key))
    assert keys[0][0] != keys[1][0] == keys[2][0]
    assert keys[0][1] != keys[1][1] == keys[2][1]
    assert len({key for *_, key in keys}) == 3


def test_data_that_have_changed_since_the_plan_are_not_measured(read: Read) -> None:
    [cell] = read(HEAD + ATTACK + NET + DEFENCE).cells
    assert len(DataSets().used(cell.data)[0]) == 60
    np.savez("train.npz", x=np.zeros((80, 16, 16, 3), dtype=np.uint8), y=np.arange(80) % 4)
    with pytest.raises(ForetasteError, match="not here what they were"):
        DataSets().used(cell.data)


def test_everything_that_is_wrong_is_said_at_once_and_by_line(read: Read) -> None:
    text = """title = 3
seed = [0]
[[data]]
source = "train.npz"
test = 0.25
limit = "600"
[[data]]
source = "train.npz"
test = 0.25
clean = 20
label = "good"
[[data]]
source = "nowhere.parquet"
[[attacks]]
name = "badnet"
[[attacks]]
name = "badnets"
rates = [0.05, 7]
[attacks.set]
target = 99
size = "big"
colour = 1
[[attacks]]
name = "trojan-nn"
[[attacks]]
name = "none"
rates = [0.1]
[[networks]]
name = "compact-resnet"
set = { epochs = 0 }
[[networks]]
name = "vgg99"
[[cleansers]]
name = "confusion-training"
only = { data = [
  "bad",
] }
[[guards]]
name = "strip"
set = { overlays = 0 }
[doors.guards]
inputs = 0
[doors.repair]
"""
    found = complaints(read, text)
    for line, part in (
        (1, "title: input should be a valid string"),
        (2, "there is no entry 'seed'"),
        (6, "limit: input should be a valid integer"),
        (10, "clean takes 20 of 20 test samples"),
        (13, "nowhere.parquet does not exist"),
        (15, "there is no attack 'badnet'; known: adaptive-blend"),
        (16, "rate must be in (0, 1], not 7"),
        (21, "size: input should be a valid number, not 'big'"),
        (22, "there is no setting 'colour'; known: rate, target, size, place"),
        (23, "trojan-nn leaves a backdoored model"),
        (25, "'none' is no attack"),
        (28, "epochs must be 1 or more"),
        (32, "there is no net 'vgg99'"),
        (35, "only.data names 'bad'"),
        (38, "overlays must be 1 or more"),
        (41, "inputs must be in"),
        (43, "there is no door 'repair'"),
    ):
        assert any(one.startswith(f"line {line}: ") and part in one for one in found), (line, part, found)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no [[data]]"),
        (f"seeds = [{2**32}]\n" + HEAD + ATTACK + NET + DEFENCE, "seeds.0: input should be less than or equal to"),
        ("seeds = [1, 1]\n" + HEAD + ATTACK + NET + DEFENCE, "a seed is there twice"),
        (HEAD + "share = 0.1\n" + ATTACK + NET + DEFENCE, "6 of 60 training samples leave 0 classes of 10 or more"),
        ("[resources]\ncpus = 1.5\n" + HEAD + ATTACK + NET + DEFENCE, "above 1 it must be whole"),
        (HEAD + ATTACK + NET + '[[cleansers]]\nname = "foretaste.attacks:BadNets"\n', "is no cleanser"),
        (HEAD + ATTACK + NET, "there is no defence"),
        (HEAD + ATTACK + "set = { target = 4 }\n" + NET + DEFENCE, "target 4 is not one of the 4 classes of train"),
        (HEAD + ATTACK + "set = { rate = 0.1 }\nrates = [0.1]\n" + NET + DEFENCE, "the rate is given twice"),
        (HEAD + ATTACK + NET + DEFENCE + DEFENCE, "two cleansers are called 'confusion-training'"),
        (HEAD + ATTACK + NET.replace("compact-resnet", "mlp") + DEFENCE, "mlp"),
        (HEAD.replace("0.25", "1.5") + ATTACK + NET + DEFENCE, "test: input should be less than 1"),
        (HEAD.replace("test = 0.25\n", "") + ATTACK + NET + DEFENCE, "has no test set of its own"),
        (HEAD + ATTACK + NET + DEFENCE + 'only = { doors = ["guards"] }\n', "nothing is left to measure"),
        (HEAD + "[attacks]\n" + NET + DEFENCE, "[[attacks]] must be an array of tables"),
        ("imperfections = [3]\n" + HEAD + ATTACK + NET + DEFENCE, "[[imperfections]] must be an array of tables"),
        ("doors = 3\n" + HEAD + ATTACK + NET + DEFENCE, "the conditions of a door are a table"),
        (HEAD + ATTACK + NET + '[[cleansers]]\nname = "no.such:Thing"\n', "no.such:Thing cannot be found"),
        (HEAD + ATTACK + NET + '[[cleansers]]\nname = "json:dumps"\n', "json:dumps is no cleanser"),
        (HEAD + '[[attacks]]\nname = "trojan-nn"\n' + NET + '[[repairs]]\nname = "abl"\n', "which abl starts from"),
        (HEAD + '[[attacks]]\nname = "trojan-nn"\n' + NET + '[[repairs]]\nname = "retrain"\n', "which retrain starts"),
        (
            HEAD.replace("10", "0") + '[[attacks]]\nname = "trojan-nn"\n' + NET + '[[inspectors]]\nname = "mm-bd"\n',
            "trojan-nn needs a clean set",
        ),
        (HEAD + ATTACK + NET + '[[repairs]]\nname = "nad"\n', "nad needs 20 clean samples or more, not 10"),
        (HEAD + ATTACK + NET + '[[inspectors]]\nname = "debackdoor"\n', "debackdoor needs 40 clean samples or more"),
        (HEAD + ATTACK + NET + '[[guards]]\nname = "strip"\n', "strip needs 20 clean samples or more, not 10"),
        (HEAD + ATTACK + NET + '[[guards]]\nname = "all"\n', "all needs 40 clean samples or more, not 10"),
        (
            HEAD + '[[attacks]]\nname = "malware-constrained"\n' + NET + DEFENCE,
            "malware-constrained cannot be tried on train: this attack works on feature vectors only",
        ),
        (
            HEAD.replace("train", "features") + '[[attacks]]\nname = "none"\n[[networks]]\nname = "mlp"\n'
            '[[guards]]\nname = "strip"\n',
            "features has feature vectors, and guards screen images",
        ),
    ],
)
def test_impossible_combinations_are_refused(read: Read, text: str, reason: str) -> None:
    assert any(reason in one for one in complaints(read, text))


def test_a_rate_that_is_there_twice_is_one_mistake(read: Read) -> None:
    assert complaints(read, HEAD + ATTACK + "rates = [0.1, 0.2, 0.1]\n" + NET + DEFENCE) == [
        "line 7: a rate is there twice"
    ]


def test_paths_may_name_environment_variables(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = read(HEAD + ATTACK + NET + DEFENCE).cells
    monkeypatch.setenv("SETS", str(tmp_path))
    assert read(HEAD.replace("train.npz", "$SETS/train.npz") + ATTACK + NET + DEFENCE).cells[0].key == here[0].key
    found = complaints(read, HEAD.replace("train.npz", "$NOWHERE/train.npz") + ATTACK + NET + DEFENCE)
    assert any("$NOWHERE/train.npz does not exist" in one for one in found)


def test_a_named_set_is_taken_from_the_folder_that_the_environment_names_and_from_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = Samples.from_arrays(np.zeros((20, 4, 4, 3), np.uint8), np.arange(20) % 2)
    sources: list[str] = []

    def read(source: str, **options: object) -> SimpleNamespace:
        sources.append(source)
        return SimpleNamespace(samples=samples)

    monkeypatch.setattr(io, "read", read)
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        Path(f"gtsrb-{split}.parquet").touch()
    for folder, expected in (
        (None, ["gtsrb", "gtsrb"]),
        ("", ["gtsrb", "gtsrb"]),
        (str(tmp_path), [str(tmp_path / "gtsrb-train.parquet"), str(tmp_path / "gtsrb-test.parquet")]),
    ):
        monkeypatch.delenv("FORETASTE_DATA", raising=False)
        if folder is not None:
            monkeypatch.setenv("FORETASTE_DATA", folder)
        sources.clear()
        DataSets().read(DataSet(label="gtsrb", source="gtsrb"))
        assert sources == expected


def test_files_that_are_no_specification_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    with pytest.raises(ForetasteError, match="cannot read"):
        specification.read(path, DataSets())
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        specification.read(path, DataSets())
    path.write_text("title = \n")
    with pytest.raises(UsageError, match=r"not TOML: invalid value \(at line 1"):
        specification.read(path, DataSets())


def test_shipped_specifications_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"quick.toml", "cleansers.toml", "quiet.toml", "models.toml", "guards.toml"} <= set(specification.shipped())
    assert specification.find("quick.toml").read_text().startswith("#")
    Path("quick.toml").write_text("mine")
    assert specification.find("quick.toml").read_text() == "mine"
    with pytest.raises(
        UsageError, match=r"no file other\.toml; shipped with foretaste: attacks\.toml, cleansers\.toml"
    ):
        specification.find("other.toml")


def test_lines_are_those_where_values_begin() -> None:
    lines = lines_of('a = 1\n\n# comment\nb = [\n  1,\n  2,\n]\n[[c]]\nd = """\nx = 1\n"""\n[[c]]\n')
    assert lines["a",] == 1
    assert lines["b", 1] == 4
    assert lines["c", 0, "d"] == 9
    assert lines["c", 1] == 12
    assert ("x",) not in lines
    assert line_at(lines, ("c", 1, "missing")) == 12
    assert line_at(lines, ("nowhere",)) == 1


@pytest.mark.parametrize("name", specification.shipped())
def test_shipped_specifications_are_sound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(data: DataSet, on_progress: OnProgress) -> tuple[Samples, Samples]:
        classes = {"cifar10": 10, "gtsrb": 43, "signs": 16}.get(data.source, 2)
        shape, kind = ((69,), np.float32) if data.source.endswith(".csv") else ((32, 32, 3), np.uint8)
        # As in GTSRB, the first classes are larger than others: attacks that keep labels need enough of them.
        labels = np.where(np.arange(3000) < 2000, np.arange(3000) % classes, np.arange(3000) % min(classes, 5))
        samples = Samples.from_arrays(np.zeros((3000, *shape), kind), labels)
        return samples, samples

    monkeypatch.setattr(case, "read_sets", drawn)
    wanted = specification.read(specification.find(name), DataSets())
    assert wanted.title
    assert wanted.cells


def test_an_attack_is_tried_on_the_set_with_its_imperfections(read: Read) -> None:
    text = HEAD + '[[attacks]]\nname = "narcissus"\nrates = [0.3]\n' + NET + DEFENCE
    [complaint] = complaints(read, text)
    assert complaint.startswith("line 5: narcissus cannot be tried on train: the attack needs 18 samples to poison")
    assert read(text + "[[imperfections]]\nimbalance = 10\n").cells  # leaves all of the target class, and fewer others
    [complaint] = complaints(read, text + "[[imperfections]]\nclass_in_class = 0.9\n")
    assert complaint.startswith("line 1: train, class in class 0.9: class_in_class 0.9 takes 54 samples")


@pytest.mark.parametrize("name", sorted(attacks.ATTACKS))
def test_an_attack_is_kept_from_samples_of_the_other_kind(read: Read, name: str) -> None:
    attack = f'[[attacks]]\nname = "{name}"\nonly = {{ doors = ["repairs"] }}\n'
    repair = '[[repairs]]\nname = "fine-tuning"\nset = { epochs = 1 }\n'
    for source, net, works_on in (("train", "compact-resnet", "images"), ("features", "mlp", "feature vectors")):
        head = HEAD.replace("train", source)
        network = NET.replace("compact-resnet", net)
        found = [one for one in complaints(read, head + attack + network + repair) if "works on" in one]
        assert len(found) == (works_on != ("feature vectors" if name.startswith("malware") else "images"))
        assert all(one.startswith(f"line 5: {name} cannot be tried on {source}: this attack works on") for one in found)
