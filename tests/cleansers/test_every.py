"""What holds for every built-in cleanser."""

import dataclasses

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


@every
def test_its_docstring_names_every_hyperparameter(name: str) -> None:
    method = built_in()[name]
    assert method.__doc__ is not None
    assert dataclasses.is_dataclass(method)
    for field in dataclasses.fields(method):
        assert f"        {field.name}: " in method.__doc__


@every
def test_the_command_line_can_set_every_hyperparameter_to_its_default(name: str) -> None:
    method = built_in()[name]
    assert dataclasses.is_dataclass(method)
    for field in dataclasses.fields(method):
        value = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
        assert parse_settings(method, [f"{field.name}={value}"]) == {field.name: field.default}
