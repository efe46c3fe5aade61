import importlib.metadata
import re
from pathlib import Path

import pytest

import foretaste

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


def test_the_python_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out
