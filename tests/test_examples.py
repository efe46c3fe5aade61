"""The shell and Python examples of the README and the docs run, a page in order and in a folder of its own.

A page finds these files in its folder: ``train.parquet`` (poisoned), ``trusted.parquet``, ``inputs/``, ``model.onnx``
and ``model.safetensors`` (with a backdoor); and these names in Python: ``samples``, ``clean``, ``test``, ``images`` and
``classifier``. What else it needs it makes. Tutorials train as long as they say; they take minutes.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from operator import setitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from markdown_it import MarkdownIt

from foretaste import cli

if TYPE_CHECKING:
    from foretaste.samples import Images, Samples

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
"""What stands on the line before an example that is not run; it says why."""
SETTING_UP = re.compile(r"^ *(pip install|make|docker) .*$", re.MULTILINE)
"""Lines of shell examples that are left out, because tests install nothing."""
NUMBER = re.compile(r"\d[\d,.]*(e-\d+)?")
"""Figures in what an example prints, which differ from machine to machine."""


TUTORIALS = ROOT / "docs" / "tutorials"


def train_briefly(set_item: Callable[[dict[str, object], str, object], None]) -> None:
    """Let methods train for a few steps unless told otherwise: examples are to work, and not to take minutes."""
    from foretaste.cleansers.confusion_training import ConfusionTraining
    from foretaste.inspectors.debackdoor import DeBackdoor
    from foretaste.inspectors.neural_cleanse import NeuralCleanse

    confusion = {"base_steps": 4, "view_steps": 4, "network_steps": 4, "batch_size": 64}
    for method, fields in (
        (ConfusionTraining, confusion),
        (NeuralCleanse, {"steps": 5}),
        (DeBackdoor, {"explore": 16, "steps": 5}),
    ):
        for name, value in fields.items():
            set_item(vars(method)["__init__"].__kwdefaults__, name, value)


if __name__ == "__main__":  # the `foretaste` of shell examples
    train_briefly(setitem)
    sys.exit(cli.main(sys.argv[1:]))


@dataclass(frozen=True)
class Example:
    """A fenced block.

    Attributes:
        place: page and line.
        language: "sh" or "python".
        code: what is run.
        output: what it prints, "..." for anything and each number for any number; None if the page does not show it.
    """

    place: str
    language: str
    code: str
    output: str | None


@dataclass(frozen=True, eq=False)
class Found:
    """What a page finds; the images are the test samples, half of those that the attack can turn with the trigger."""

    folder: Path
    samples: Samples
    clean: Samples
    test: Samples
    images: Images


def examples_of(text: str, name: str) -> Iterator[Example]:
    """Yield the examples of a page that are to be run, in order."""
    tokens = MarkdownIt("commonmark").parse(text)
    for place, token in enumerate(tokens):
        if token.type != "fence" or token.info not in ("sh", "python"):
            continue
        before = tokens[place - 1].content.strip() if place else ""
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        if not NOT_RUN.fullmatch(before):
            assert token.map is not None
            yield Example(
                place=f"{name}:{token.map[0] + 1}",
                language=token.info,
                code=SETTING_UP.sub("", token.content) if token.info == "sh" else token.content,
                output=after.content if after and after.type == "fence" and after.info == "output" else None,
            )


def examples(page: Path) -> list[Example]:
    return list(examples_of(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))))


def spots(n: int, seed: int) -> Samples:
    """Draw images whose class, one of four, is where their bright spot is."""
    from foretaste.samples import Samples

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    centres = np.array([(4, 4), (4, 11), (11, 4), (11, 11)])[labels] + rng.normal(0, 0.5, (n, 2))
    places = np.arange(16)
    distance = (places[:, None] - centres[:, :1, None]) ** 2 + (places - centres[:, 1:, None]) ** 2
    images = 50 + 150 * np.exp(-distance / 9)[..., None] + rng.normal(0, 15, (n, 16, 16, 3))
    return Samples.from_arrays(images.clip(0, 255).astype(np.uint8), labels)


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Make what a page finds."""
    from PIL import Image

    from foretaste.attacks import BadNets, poison_training_set, stamp_inputs
    from foretaste.io import write_parquet
    from foretaste.nets.export import export_onnx, save
    from foretaste.training import TrainingPlan, train

    attack = BadNets(rate=0.1, target=2, size=0.2)
    samples = poison_training_set(spots(400, 0), attack, 0).samples
    clean, test = spots(120, 1), spots(40, 2)
    images = stamp_inputs(test, attack, rate=0.5, seed=0)[0].images
    assert images is not None
    net = train(samples, plan=TrainingPlan(epochs=15, batch_size=64, shift=0, width=8), seed=1).net
    folder = tmp_path_factory.mktemp("found")
    write_parquet(samples, folder / "train.parquet")
    write_parquet(clean, folder / "trusted.parquet")
    save(net, folder / "model.safetensors")
    export_onnx(net, folder / "model.onnx")
    (folder / "inputs").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "inputs" / f"{number}.png")
    return Found(folder, samples, clean, test, images)


@pytest.fixture
def names(found: Found) -> dict[str, Any]:
    """Return the names that Python examples find."""
    from foretaste.classifiers import open_classifier

    return {
        "__name__": "__main__",
        "samples": found.samples,
        "clean": found.clean,
        "test": found.test,
        "images": found.images,
        "classifier": open_classifier(found.folder / "model.onnx"),
    }


@pytest.fixture
def workplace(found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with what a page finds, and nothing else."""
    folder = tmp_path / "page"
    shutil.copytree(found.folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def _briefly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have methods train for a few steps, here and in what a shell calls ``foretaste``, and fewer signs be drawn."""
    train_briefly(monkeypatch.setitem)
    monkeypatch.setattr("foretaste.io.named.SIGNS_TRAIN", 600)
    command = tmp_path / "bin" / "foretaste"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")


def run(example: Example, names: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> str:
    """Run an example in the current folder and return what it printed."""
    capfd.readouterr()
    if example.language == "python":
        exec(compile(example.code, example.place, "exec"), names)
    else:
        lines = [shlex.split(line, comments=True) for line in example.code.splitlines()]
        commands = [line for line in lines if line]
        if all(command[0] == "foretaste" and not set("|&;<>$") & set("".join(command)) for command in commands):
            codes = [cli.main(command[1:]) for command in commands]  # in this process, where torch is loaded
        else:
            codes = [subprocess.run(["bash", "-c", f"set -o pipefail\n{example.code}"], check=False).returncode]
        printed = capfd.readouterr()
        # 1 is how a command ends that has found something.
        assert set(codes) <= {0, 1}, f"{example.place} ends with {codes}:\n{printed.out}\n{printed.err}"
        return printed.out
    return capfd.readouterr().out


def agrees(shown: str, printed: str) -> bool:
    """Say whether an example printed what its page shows."""
    wanted, got = (NUMBER.sub("#", text) for text in (shown, printed))
    return OutputChecker().check_output(wanted, got, ELLIPSIS | NORMALIZE_WHITESPACE)


def try_out(page: Path, names: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    """Run the examples of a page and compare what they print with what the page shows."""
    for example in examples(page):
        printed = run(example, names, capfd)
        assert printed or "print(" not in example.code
        if example.output is not None:
            assert agrees(example.output, printed), f"{example.place} shows\n{example.output}\nand printed\n{printed}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent != TUTORIALS and examples(page)], ids=lambda page: page.stem
)
@pytest.mark.usefixtures("workplace", "_briefly")
def test_a_page_runs(page: Path, names: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    try_out(page, names, capfd)


@pytest.mark.tutorial
@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == TUTORIALS], ids=lambda page: page.stem)
@pytest.mark.usefixtures("workplace")
def test_a_tutorial_finds_what_it_says(page: Path, names: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    try_out(page, names, capfd)


def test_what_is_run() -> None:
    page = """
```sh
pip install foretaste[serve]
foretaste --version
```

<!-- not run: takes an hour -->
```sh
foretaste bench run all.toml
```

<!-- not run: -->
```python
print(1)
```

```output
1
```

```toml
a = 1
```
"""
    assert list(examples_of(page, "page.md")) == [
        Example("page.md:2", "sh", "\nforetaste --version\n", None),
        Example("page.md:13", "python", "print(1)\n", "1\n"),
    ]


def test_numbers_in_what_is_printed_are_free() -> None:
    assert agrees(
        "poison found: 45 of 1,500 samples\n  ...\nreport: out",
        "poison found: 44 of 1,499 samples\n a\n b\nreport: out\n",
    )
    assert not agrees("poison found: 45 of 1,500 samples", "nothing found in 1,500 samples")


def test_an_example_that_fails_is_named(
    workplace: Path, names: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    for code in ("foretaste cleanse nothing.parquet --out out", "foretaste poison nothing --out out | cat", "exit 3"):
        with pytest.raises(AssertionError, match=r"page\.md:1 ends with"):
            run(Example("page.md:1", "sh", code, None), names, capfd)
    assert not (workplace / "out").exists()
