import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import foretaste
from foretaste.cleansers.verdict import Cleanser
from foretaste.progress import silent

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", foretaste.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(foretaste, name) is not None


def test_dir_lists_the_public_names() -> None:
    assert dir(foretaste) == sorted(foretaste.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'bite'"):
        foretaste.bite  # noqa: B018


def test_the_version_is_the_installed_one() -> None:
    assert foretaste.__version__ == importlib.metadata.version("foretaste")


def test_the_method_of_the_docs_works() -> None:
    """The page on writing a method shows one; it catches what it was made for."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {"__name__": "my_package.brightness"}
    exec(compile(example, "extending.md", "exec", dont_inherit=True), names)
    method = names["Brightness"]
    assert isinstance(method, type)
    assert isinstance(method(), Cleanser)

    images = np.full((60, 4, 4, 1), 100, dtype=np.uint8)
    images[7] = 255
    samples = foretaste.Samples.from_arrays(images, np.arange(60) % 2)
    verdict = method(limit=3).inspect(samples, None, seed=0, workdir=None, on_progress=silent)
    assert np.flatnonzero(verdict.flagged).tolist() == [7]
    assert verdict.suspect_classes == (1,)


def test_the_docs_name_every_attack() -> None:
    page = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    assert [name for name in foretaste.ATTACKS if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize(
    ("own", "spins"),
    [({}, foretaste.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
    ids=str,
)
def test_waiting_threads_sleep_soon_unless_told_otherwise(own: dict[str, str], spins: str) -> None:
    """OpenMP reads it when torch is imported, so it must be there before."""
    code = "import os, sys, foretaste; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    kept = {name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    run = subprocess.run([sys.executable, "-c", code], env={**kept, **own}, capture_output=True, text=True, check=True)
    assert run.stdout == f"False {spins}\n"
