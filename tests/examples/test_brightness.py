"""The example package is installed, found by its entry point, and benchmarked."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foretaste import cleansers
from foretaste.bench import results, runner, specification, tables
from foretaste.bench.artefacts import Store
from foretaste.bench.case import DataSets

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "foretaste-brightness"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the example into a folder of its own, and have Python look there."""
    target = tmp_path / "site"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, EXAMPLE], check=True)
    monkeypatch.syspath_prepend(target)


@pytest.mark.usefixtures("installed")
def test_it_is_benchmarked_like_a_built_in_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    assert "brightness" in cleansers.names()
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", x=rng.integers(20, 40, (300, 16, 16, 3), dtype=np.uint8), y=np.arange(300) % 4)
    text = (EXAMPLE / "bench.toml").read_text()
    text = text.replace('source = "signs"', f'source = "{tmp_path / "set.npz"}"\ntest = 0.4').replace(
        "epochs = 4", "epochs = 1"
    )
    (tmp_path / "spec.toml").write_text(text.replace('[[cleansers]]\nname = "confusion-training"', ""))
    sets, store = DataSets(), Store(str(tmp_path / "out"))
    records = runner.run(specification.read(tmp_path / "spec.toml", sets), store, sets)
    assert [record.failed for record in records] == [None, None]
    [attacked] = [record for record in records if record.cell.attack is not None]
    assert attacked.figures["tpr"] == 1  # a bright square on dark images
    assert "| trojan 2 % | brightness |" in tables.markdown(results.gather(store))


def test_it_is_the_method_that_the_docs_show() -> None:
    [shown] = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), re.DOTALL
    )
    code = (EXAMPLE / "src" / "foretaste_brightness" / "__init__.py").read_text(encoding="utf-8")
    assert code.endswith(f"\n\n{shown}")
