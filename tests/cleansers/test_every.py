"""What holds for every built-in cleanser."""

import dataclasses
from typing import Any

import pytest

from foretaste.cleansers import built_in
from foretaste.cleansers.verdict import Cleanser
from foretaste.cli.fields import parse_settings

every = pytest.mark.parametrize("name", built_in())


@every
def test_it_is_a_frozen_dataclass_under_its_own_name(name: str) -> None:
    method = built_in()[name]
    cleanser = method()
    assert isinstance(cleanser, Cleanser)
    assert cleanser.name == name
    assert "\n" not in cleanser.summary
    with pytest.raises(dataclasses.FrozenInstanceError):
        cleanser.name = "another"  # type: ignore[misc]


def defaults(name: str) -> dict[str, Any]:
    method: Any = built_in()[name]
    return {field.name: field.default for field in dataclasses.fields(method)}


@every
def test_its_docstring_names_every_hyperparameter(name: str) -> None:
    text = built_in()[name].__doc__ or ""
    assert [field for field in defaults(name) if f"        {field}: " not in text] == []


@every
def test_the_command_line_can_set_every_hyperparameter_to_its_default(name: str) -> None:
    for field, default in defaults(name).items():
        value = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        assert parse_settings(built_in()[name], [f"{field}={value}"]) == {field: default}
