"""The ground truth of a poisoned set, ``truth.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from foretaste.errors import ForetasteError
from foretaste.io.atomic import atomic_json
from foretaste.samples import Labels, Mask, Samples

SCHEMA = "urn:foretaste:truth:1"
"""The schema of ``truth.json``, in ``docs/schemas``."""


@dataclass(frozen=True, eq=False)
class Marks:
    """The truth laid beside samples.

    Attributes:
        poison: ``bool (N,)``, samples that plant the backdoor.
        cover: ``bool (N,)``, samples that carry the trigger under their true label.
        trojaned: ``bool (N,)``, test-time inputs that carry the trigger.
        original_labels: ``int64 (N,)``, labels before the attack.
    """

    poison: Mask
    cover: Mask
    trojaned: Mask
    original_labels: Labels


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What an attack did, by sample id.

    Attributes:
        poison: ids of the samples that plant the backdoor.
        cover: ids of the samples that carry the trigger under their true label.
        original_labels: label of each poison sample before the attack.
        trojaned: ids of the test-time inputs that carry the trigger; None for a training set.
        attacks: ids of the poison and cover samples of each attack, by the attack's name; may be empty.
        noisy_labels: label, before label noise, of each sample that the noise mislabelled; no poison for that.
    """

    poison: frozenset[str] = frozenset()
    cover: frozenset[str] = frozenset()
    original_labels: Mapping[str, int] = field(default_factory=dict)
    trojaned: frozenset[str] | None = None
    attacks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    noisy_labels: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_training_set(
        cls, samples: Samples, poison: Mask, cover: Mask, original_labels: Labels, attack: str | None = None
    ) -> Self:
        """Note which of the samples are poison and cover, ``bool (N,)``, their labels before, and the attack's name."""
        return cls(
            attacks={} if attack is None else {attack: frozenset(samples.ids[poison | cover].tolist())},
            poison=frozenset(samples.ids[poison].tolist()),
            cover=frozenset(samples.ids[cover].tolist()),
            original_labels=dict(zip(samples.ids[poison].tolist(), original_labels[poison].tolist(), strict=True)),
        )

    @classmethod
    def of_inputs(cls, samples: Samples, trojaned: Mask) -> Self:
        """Note which of the test-time inputs carry the trigger, ``bool (N,)``."""
        return cls(trojaned=frozenset(samples.ids[trojaned].tolist()))

    def joined(self, later: Truth) -> Truth:
        """Return the truth about a training set that a later attack poisoned as well.

        An attack that poisoned it before is listed under its name with a number: "badnets (2)".
        """
        attacks = dict(self.attacks)
        for name, ids in later.attacks.items():
            same = sum(earlier == name or earlier.startswith(f"{name} (") for earlier in attacks)
            attacks[f"{name} ({same + 1})" if same else name] = ids
        return Truth(
            poison=self.poison | later.poison,
            cover=self.cover | later.cover,
            original_labels={**later.original_labels, **self.original_labels},
            attacks=attacks,
            noisy_labels={**self.noisy_labels, **later.noisy_labels},
        )

    def mark(self, samples: Samples) -> Marks:
        """Lay the truth beside the samples, which may be a part of the set that the truth is about.

        Raises:
            ForetasteError: the truth names ids, and the samples have none of them: it belongs to another set.
        """
        named = self.poison | self.cover | (self.trojaned or frozenset())
        rows = {name: row for row, name in enumerate(samples.ids.tolist())}
        if named and rows.keys().isdisjoint(named):
            raise ForetasteError(
                f"the truth is about other samples: none of its {len(named)} ids, such as {min(named)}, is among them"
            )

        def mask(names: frozenset[str]) -> Mask:
            found = np.zeros(len(samples), dtype=np.bool_)
            found[[rows[name] for name in names if name in rows]] = True
            return found

        labels = samples.labels.copy()
        for name, label in self.original_labels.items():
            if name in rows:
                labels[rows[name]] = label
        return Marks(mask(self.poison), mask(self.cover), mask(self.trojaned or frozenset()), labels)


def write_truth(truth: Truth, path: str | Path) -> None:
    """Write ``truth.json``: ``poison``, ``cover``, ``original_labels`` and ``attacks``, or ``trojaned`` for inputs.

    ``noisy_labels`` is there only where labels are noisy.

    Raises:
        ForetasteError: the file cannot be written.
    """
    if truth.trojaned is not None:
        atomic_json(path, {"schema": SCHEMA, "trojaned": sorted(truth.trojaned)})
        return
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "poison": sorted(truth.poison),
        "cover": sorted(truth.cover),
        "original_labels": dict(sorted(truth.original_labels.items())),
        "attacks": {name: sorted(ids) for name, ids in sorted(truth.attacks.items())},
    }
    if truth.noisy_labels:
        value["noisy_labels"] = dict(sorted(truth.noisy_labels.items()))
    atomic_json(path, value)


def read_truth(path: str | Path) -> Truth:
    """Read ``truth.json``.

    Raises:
        ForetasteError: the file cannot be read, is not JSON, or is not of the form that ``write_truth`` gives it.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ForetasteError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ForetasteError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict) or not value.keys() & {"poison", "trojaned"}:
        raise ForetasteError(f"{path} has neither poison nor trojaned ids")
    attacks = value.get("attacks", {})
    if not isinstance(attacks, dict):
        raise ForetasteError(f"{path}: attacks must map names to lists of ids")
    return Truth(
        poison=_ids(value, "poison", path),
        cover=_ids(value, "cover", path),
        original_labels=_labels(value, "original_labels", path),
        noisy_labels=_labels(value, "noisy_labels", path),
        trojaned=_ids(value, "trojaned", path) if "trojaned" in value else None,
        attacks={name: _ids(attacks, name, path) for name in attacks},
    )


def _ids(value: dict[str, Any], key: str, path: str | Path) -> frozenset[str]:
    names = value.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ForetasteError(f"{path}: {key} must be a list of ids")
    return frozenset(names)


def _labels(value: dict[str, Any], key: str, path: str | Path) -> dict[str, int]:
    labels = value.get(key, {})
    if not isinstance(labels, dict) or any(
        type(label) is not int or not 0 <= label < 2**31 for label in labels.values()
    ):
        raise ForetasteError(f"{path}: {key} must map ids to labels")
    return labels
