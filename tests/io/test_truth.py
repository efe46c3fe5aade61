from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste import ForetasteError, Samples, io
from foretaste.io import Truth


@pytest.fixture
def truth(pictures: Samples) -> Truth:
    poison = np.zeros(len(pictures), np.bool_)
    cover = poison.copy()
    poison[[3, 5]] = cover[[7]] = True
    return Truth.of_training_set(pictures, poison, cover, np.full(len(pictures), 2))


def test_round_trip(tmp_path: Path, truth: Truth) -> None:
    io.write_truth(truth, tmp_path / "truth.json")
    assert io.read_truth(tmp_path / "truth.json") == truth
    inputs = Truth(trojaned=frozenset(["a", "ü"]))
    io.write_truth(inputs, tmp_path / "test.json")
    assert io.read_truth(tmp_path / "test.json") == inputs


def test_truths_are_joined(tmp_path: Path) -> None:
    first = Truth(poison=frozenset("ab"), original_labels={"a": 1, "b": 2}, attacks={"one": frozenset("ab")})
    later = Truth(
        poison=frozenset("c"), cover=frozenset("d"), original_labels={"c": 3}, attacks={"two": frozenset("cd")}
    )
    both = first.joined(later)
    assert both == Truth(
        poison=frozenset("abc"),
        cover=frozenset("d"),
        original_labels={"a": 1, "b": 2, "c": 3},
        attacks={"one": frozenset("ab"), "two": frozenset("cd")},
    )
    io.write_truth(both, tmp_path / "truth.json")
    assert io.read_truth(tmp_path / "truth.json") == both
    again = both.joined(Truth(poison=frozenset("e"), attacks={"one": frozenset("e")}))
    again = again.joined(Truth(poison=frozenset("f"), attacks={"one": frozenset("f")}))
    assert again.attacks["one"] == frozenset("ab")
    assert (again.attacks["one (2)"], again.attacks["one (3)"]) == (frozenset("e"), frozenset("f"))


def test_marks_lie_beside_the_samples(pictures: Samples, truth: Truth) -> None:
    marks = truth.mark(pictures)
    assert np.flatnonzero(marks.poison).tolist() == [3, 5]
    assert np.flatnonzero(marks.cover).tolist() == [7]
    assert not marks.trojaned.any()
    assert marks.original_labels[[3, 5]].tolist() == [2, 2]
    assert (np.delete(marks.original_labels, [3, 5]) == np.delete(pictures.labels, [3, 5])).all()


def test_a_part_of_the_set_is_enough(pictures: Samples, truth: Truth) -> None:
    assert np.flatnonzero(truth.mark(pictures[4:6]).poison).tolist() == [1]


def test_truth_about_another_set(pictures: Samples, truth: Truth) -> None:
    with pytest.raises(ForetasteError, match="about other samples: none of its 3 ids, such as x/3"):
        truth.mark(pictures[10:])
    assert not Truth().mark(pictures).poison.any()


def test_trojaned_inputs(pictures: Samples) -> None:
    trojaned = np.arange(len(pictures)) < 4
    assert (Truth.of_inputs(pictures, trojaned).mark(pictures).trojaned == trojaned).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "neither poison nor trojaned"),
        ('{"cover": []}', "neither poison nor trojaned"),
        ('{"poison": 3}', "poison must be a list of ids"),
        ('{"poison": [3]}', "poison must be a list of ids"),
        ('{"poison": [], "attacks": []}', "attacks must map names to lists of ids"),
        ('{"poison": [], "attacks": {"badnets": 3}}', "badnets must be a list of ids"),
        ('{"trojaned": null}', "trojaned must be a list of ids"),
        ('{"poison": ["a"], "original_labels": {"a": true}}', "must map ids to labels"),
        ('{"poison": ["a"], "original_labels": {"a": -1}}', "must map ids to labels"),
        ('{"poison": ["a"], "original_labels": []}', "must map ids to labels"),
    ],
)
def test_damaged_truth(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(ForetasteError, match=message):
        io.read_truth(tmp_path / "truth.json")


def test_missing_truth(tmp_path: Path) -> None:
    with pytest.raises(ForetasteError, match=r"cannot read .*truth\.json: No such file"):
        io.read_truth(tmp_path / "truth.json")


@given(st.binary(max_size=60))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "truth.json"
    path.write_bytes(content)
    with pytest.raises(ForetasteError):
        io.read_truth(path)
