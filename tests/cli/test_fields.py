from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from foretaste.cli.fields import parse_settings
from foretaste.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Method:
    summary: ClassVar[str] = "not a hyperparameter"
    steps: int = 5
    rate: float = 0.1
    fast: bool = False
    name: str = "a"
    limit: int | None = None
    ratios: tuple[float, ...] = (0.5,)
    box: tuple[int, int] | None = None
    mode: Literal["mean", "max"] = "mean"
    picture: Path = Path("a.png")
    state: int = field(default=0, init=False)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps=12", 12),
        ("rate=1e-3", 0.001),
        ("fast=true", True),
        ("fast=no", False),
        ("name=x=y", "x=y"),
        ("name=none", "none"),
        ("limit=3", 3),
        ("limit=none", None),
        ("ratios=0.5, 0.2,0.04", (0.5, 0.2, 0.04)),
        ("ratios=1", (1.0,)),
        ("box=3,4", (3, 4)),
        ("box=None", None),
        ("mode=max", "max"),
        ("picture=b/c.png", Path("b/c.png")),
    ],
)
def test_values_take_the_type_of_their_field(setting: str, value: Any) -> None:
    [parsed] = parse_settings(Method, [setting]).values()
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("steps", "takes name=value"),
        ("step=3", "no setting 'step'; known: box, fast, limit, mode, name, picture, rate, ratios, steps"),
        ("summary=x", "no setting"),
        ("state=1", "no setting"),
        ("steps=3.5", "valid integer"),
        ("steps=", "valid integer"),
        ("fast=perhaps", "valid boolean"),
        ("ratios=0.5;0.2", "valid number"),
        ("box=1,2,3", "at most 2"),
        ("mode=median", "'mean' or 'max'"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_in_words(setting: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parse_settings(Method, [setting])


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="steps is given twice"):
        parse_settings(Method, ["steps=1", "steps=2"])


def test_settings_keep_only_what_was_given() -> None:
    assert parse_settings(Method, ["steps=1", "rate=0.2"]) == {"steps": 1, "rate": 0.2}
