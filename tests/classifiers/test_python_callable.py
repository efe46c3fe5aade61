import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.classifiers.python_callable import PythonCallable, load_callable
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def write(name: str, code: str) -> None:
    Path(f"{name}.py").write_text(code)


def test_labels_and_lists_are_answers(images: Images) -> None:
    write("callable_one", "class model:\n    @staticmethod\n    def ask(images): return [len(i) % 7 for i in images]")
    classifier = load_callable("callable_one:model.ask")
    assert classifier.classify(images).labels.tolist() == [2] * 20
    assert classifier.classify(images).scores is None
    assert len(classifier.classify(images[:0])) == 0


def test_a_function_that_writes_to_its_images_changes_nothing(images: Images) -> None:
    def spoil(batch: Images) -> Any:
        batch[:] = 0
        return np.zeros(len(batch), dtype=np.int64)

    before = images.copy()
    PythonCallable(spoil).classify(images)
    np.testing.assert_array_equal(images, before)


def test_many_images_come_in_batches() -> None:
    sizes: list[int] = []

    def count(batch: Images) -> Any:
        sizes.append(len(batch))
        return batch[:, 0, 0, 0].astype(np.int64)

    images = np.arange(600, dtype=np.uint8).reshape(600, 1, 1, 1)
    np.testing.assert_array_equal(PythonCallable(count).classify(images).labels, images[:, 0, 0, 0])
    assert max(sizes) == 256


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda images: None, "answers 20 images with object"),
        (lambda images: 3, r"answers 20 images with int64 \(\)"),
        (lambda images: [0] * 19, r"answers 20 images with int64 \(19,\)"),
        (lambda images: [[0.0], [1.0, 2.0]], "fails on 20 images: ValueError"),
        (lambda images: ["cat"] * 20, "which is neither"),
        (lambda images: np.full((20, 3), np.nan), "NaN"),
        (lambda images: 1 / 0, "fails on 20 images: ZeroDivisionError: division by zero"),
        (lambda: 0, "fails on 20 images: TypeError"),
    ],
)
def test_garbage_is_one_sentence(function: Callable[..., Any], complaint: str, images: Images) -> None:
    with pytest.raises(ForetasteError, match=f"^the function .*{complaint}"):
        PythonCallable(function).classify(images)


def test_places_that_are_none() -> None:
    write("callable_two", "number = 3")
    write("callable_broken", "import no_such_package_anywhere")
    write("callable_raising", "raise RuntimeError('not\\ntoday')")
    for place, error, complaint in (
        ("no colon", UsageError, "not of the form"),
        ("a:b:c", UsageError, "not of the form"),
        (":b", UsageError, "not of the form"),
        ("no_such_module_here:ask", UsageError, "there is no Python module no_such_module_here"),
        ("callable_two.inner:ask", UsageError, "there is no Python module callable_two.inner"),
        ("callable_two:ask", UsageError, "callable_two has no ask"),
        ("callable_two:number", UsageError, "is int and cannot be called"),
        ("callable_broken:ask", ForetasteError, "cannot import callable_broken: ModuleNotFoundError"),
        ("callable_raising:ask", ForetasteError, "cannot import callable_raising: RuntimeError: not$"),
    ):
        with pytest.raises(error, match=complaint):
            load_callable(place)


def test_a_module_sees_no_command_line(monkeypatch: pytest.MonkeyPatch, images: Images) -> None:
    monkeypatch.setattr(sys, "argv", ["foretaste", "guard", "scan", "--model", "callable_parser:model"])
    write(
        "callable_parser",
        "import argparse\nargparse.ArgumentParser().parse_args()\nmodel = lambda images: [0] * len(images)",
    )
    assert load_callable("callable_parser:model").classify(images).labels.tolist() == [0] * 20
    assert sys.argv[0] == "foretaste"


def test_a_module_or_function_that_ends_the_program_is_named(images: Images) -> None:
    write("callable_quitter", "import sys\nsys.exit(3)")
    with pytest.raises(ForetasteError, match=r"callable_quitter ends the program \(3\) when it is imported"):
        load_callable("callable_quitter:model")
    with pytest.raises(ForetasteError, match=r"the function ends the program \(1\) when it is asked"):
        PythonCallable(lambda images: sys.exit(1)).classify(images)


def test_what_a_model_prints_goes_to_standard_error(images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    write("callable_chatty", "print('hello')\ndef model(images):\n    print('asked')\n    return [0] * len(images)")
    load_callable("callable_chatty:model").classify(images)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hello\nasked\n"
