"""What holds for every built-in cleanser."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from foretaste.cleansers import built_in, cleanse
from foretaste.cleansers.verdict import Cleanser
from foretaste.cli.fields import parse_settings
from foretaste.errors import UsageError
from foretaste.samples import Samples

QUICK: dict[str, dict[str, Any]] = {
    "confusion-training": {
        "rounds": 1,
        "folds": 2,
        "base_steps": 1,
        "view_steps": 1,
        "view_passes": 0,
        "network_steps": 1,
        "turns": 0,
    },
    "confusion-training-paper": {"budget": 0.001, "shares": (0.5,), "batch_size": 2, "pretrain_batch_size": 2},
    "asset": {"epochs": 1, "steps": 2},
    "beatrix": {"epochs": 1, "orders": (1, 2)},
    "frequency": {"steps": 2, "width": 1},
    "pixel-spectral-signatures": {},
    "psbd": {"epochs": 1, "rates": (0.5,), "passes": 1},
    "residual-trees": {"rounds": 1, "folds": 2, "trees": 3},
}
"""Settings that make a method quick; of all others one epoch of the classifier."""

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
    text = "".join(kind.__doc__ or "" for kind in built_in()[name].__mro__)
    assert [field for field in defaults(name) if f"        {field}: " not in text] == []


@every
def test_the_command_line_can_set_every_hyperparameter_to_its_default(name: str) -> None:
    for field, default in defaults(name).items():
        value = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        assert parse_settings(built_in()[name], [f"{field}={value}"]) == {field: default}


def drawn(n: int, features: bool, seed: int) -> Samples:
    rng, labels = np.random.default_rng(seed), np.arange(n) % 2
    if features:
        return Samples.from_arrays(rng.normal(size=(n, 6)) + labels[:, None], labels)
    images = rng.integers(0, 120, (n, 16, 16, 3)) + 100 * labels[:, None, None, None]
    return Samples.from_arrays(images.astype(np.uint8), labels)


def odd(kind: str, features: bool) -> tuple[Samples, Samples]:
    """Return a set and a clean set, one of which is odd."""
    samples, clean = drawn(60, features, 0), drawn(40, features, 1)
    inputs = np.array(samples.inputs)
    if kind == "most samples the same":
        inputs[:45] = 0
        samples = Samples.from_arrays(inputs, samples.labels)
    elif kind == "one clean sample":
        clean = clean[:1]
    elif kind == "clean samples of a class too small to judge":
        rare = np.concatenate([samples.labels, [2, 2]])
        samples = Samples.from_arrays(np.concatenate([inputs, inputs[:2]]), rare)
        clean = Samples.from_arrays(np.array(clean.inputs[:5]), np.full(5, 2), samples.classes)
    return samples, clean


@every
@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize(
    "kind", ["most samples the same", "one clean sample", "clean samples of a class too small to judge"]
)
def test_an_odd_set_ends_in_a_verdict_or_in_a_sentence(name: str, kind: str, features: bool) -> None:
    samples, clean = odd(kind, features)
    try:
        verdict = cleanse(samples, clean, method=name, **QUICK.get(name, {"epochs": 1}))
    except UsageError:
        return
    assert verdict.scores.shape == (len(samples),)
    assert np.isfinite(verdict.scores).all()
    assert not any(np.isinf(one.statistic) for one in verdict.classes)
