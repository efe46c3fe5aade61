import sys
from pathlib import Path

import pytest

from foretaste import cleansers, plugins
from foretaste.errors import ForetasteError, UsageError

MODULE = """
from dataclasses import dataclass, field

@dataclass(frozen=True)
class Mine:
    limit: float = 1.0

    def inspect(self):
        pass

@dataclass(frozen=True)
class Nothing:
    limit: float = 1.0

@dataclass(frozen=True)
class Needy(Mine):
    rate: float = field(kw_only=True)

def function():
    pass
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_methods_here.py").write_text(MODULE)
    (tmp_path / "my_broken_methods.py").write_text("1 / 0")


def test_a_class_that_nobody_registered_is_found_by_its_place() -> None:
    assert cleansers.find("my_methods_here:Mine")().limit == 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("place", "kind", "reason"),
    [
        ("my_methods_nowhere:Mine", UsageError, "cannot be found: No module named 'my_methods_nowhere'"),
        ("my_methods_here:Yours", UsageError, "my_methods_here:Yours is no cleanser: a method is a frozen dataclass"),
        ("my_methods_here:function", UsageError, "is no cleanser"),
        ("my_methods_here:Nothing", UsageError, "is no cleanser: a method is a frozen dataclass that defines inspect"),
        ("my_broken_methods:Mine", ForetasteError, "cannot be loaded: division by zero"),
    ],
)
def test_what_is_no_method_is_refused_in_a_sentence(place: str, kind: type[ForetasteError], reason: str) -> None:
    with pytest.raises(kind, match=reason) as error:
        cleansers.find(place)
    assert type(error.value) is kind


def test_a_hyperparameter_without_default_has_to_be_set() -> None:
    method = cleansers.find("my_methods_here:Needy")
    with pytest.raises(UsageError, match="Needy has no default for its hyperparameter 'rate'; set it"):
        plugins.build("Needy", method, {"limit": 2.0})
    assert plugins.build("Needy", method, {"rate": 0.1}).rate == 0.1  # type: ignore[attr-defined]
