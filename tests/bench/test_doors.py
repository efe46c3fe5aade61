"""The doors of the model: repaired models are judged, and what inspectors say is held against clean models."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from foretaste import inspectors, repairs
from foretaste.bench.doors import InspectorDoor, RepairDoor
from foretaste.bench.records import Record
from foretaste.errors import UsageError
from foretaste.inspectors import Evidence, Finding, Subject
from foretaste.progress import OnProgress
from foretaste.samples import Samples

from .conftest import Name, run

TRAINED = "set = { epochs = 12, width = 4, batch_size = 20, shift = 0 }"
"""Long enough for the model to know the signs and the patch."""


def measured(place: Path, defences: str) -> dict[Name, Record]:
    """Try other defences on a model that was trained longer."""
    head, _, _ = (place / "spec.toml").read_text().partition("[[cleansers]]")
    (place / "spec.toml").write_text(re.sub(r"set = \{ epochs.*", TRAINED, head) + defences)
    return run(place, "models")[1]


def test_a_repaired_model_is_judged_as_it_was_before(place: Path) -> None:
    found = measured(place, '[[repairs]]\nname = "fine-pruning"\n[[repairs]]\nname = "abl"\nset = { isolated = 0.1 }\n')
    for name in ("fine-pruning", "abl"):
        for attack in (None, "badnets"):
            record = found[attack, name, False]
            assert record.failed is None, record.failed
            figures = record.figures
            assert (figures["accuracy_before"] or 0) > 0.8
            assert 0 <= (figures["accuracy_after"] or -1) <= 1
            assert (figures["attack_success_after"] is None) == (attack is None)
    poisoned = found["badnets", "fine-pruning", False].figures
    assert (poisoned["attack_success_before"] or 0) > 0.5
    assert poisoned["accuracy_after"] != poisoned["accuracy_before"]
    # The model that the repairs share is the same for both, and was left as it was.
    assert {record.figures["accuracy_before"] for (attack, _, _), record in found.items() if attack} == {
        poisoned["accuracy_before"]
    }


@dataclass(frozen=True, kw_only=True)
class Knower:
    """Stamps the patch that the attack has, and asks how many images it turns to class 1."""

    name: ClassVar[str] = "knower"
    summary: ClassVar[str] = "knows the trigger"
    needs_weights: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 1
    fewest_classes: ClassVar[int] = 2

    def look(self, subject: Subject, clean: Samples | None, *, seed: int, on_progress: OnProgress) -> Finding:
        assert clean is not None
        images = np.array(clean.inputs[clean.labels != 1])
        images[:, -3:, -3:] = 255 * np.array([[0, 0, 1], [0, 1, 0], [1, 0, 1]])[:, :, None]
        turned = float((subject.classifier.classify(images).labels == 1).mean())
        return Finding(evidence=(Evidence(target=1, statistic=turned, p_value=1 - turned, reason="asked"),))


def test_what_is_said_of_a_model_is_held_against_clean_ones(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inspectors.INSPECTORS, "knower", Knower)
    found = measured(
        place,
        '[[inspectors]]\nname = "knower"\n[doors.inspectors]\nclean_models = 2\nfalse_alarm_rate = 0.4\n',
    )
    bad, clean = found["badnets", "knower", False], found[None, "knower", False]
    assert bad.failed is clean.failed is None
    assert (bad.figures["tpr"], bad.figures["auroc"], bad.figures["fpr"]) == (1, 1, 0)
    assert bad.figures["p_value"] == pytest.approx(1 - (bad.figures["attack_success_before"] or 0), abs=0.2)
    assert (clean.figures["tpr"], clean.figures["auroc"], clean.figures["fpr"]) == (None, None, 0)
    assert (bad.figures["queries"] or 0) > 0
    # The model of the trial without an attack is one of the two clean ones, and was not looked at again.
    artefacts = [path.name.partition("-")[0] for path in (place / "models/artefacts").iterdir()]
    assert (artefacts.count("diagnosis"), artefacts.count("model")) == (3, 3)


def test_the_heat_map_is_dark_where_the_backdoor_is_gone_and_the_accuracy_is_not() -> None:
    door = RepairDoor()
    whole = {"accuracy_before": 0.8, "accuracy_after": 0.8, "attack_success_after": 0.0}
    assert door.goodness(whole) == 1
    assert door.goodness({**whole, "accuracy_after": 0.4}) == pytest.approx(0.5)
    assert door.goodness({**whole, "attack_success_after": 1.0}) == 0
    assert door.goodness({**whole, "attack_success_after": None}) == 1
    assert door.goodness({}) is None
    assert door.headline(whole) == "80.0 / 0"
    assert InspectorDoor().goodness({"tpr": 1.0, "fpr": 0.25}) == pytest.approx(0.75)
    assert InspectorDoor().headline({"tpr": None, "fpr": 0.0}) == "– / 0"


def test_methods_are_those_of_the_registries_and_conditions_are_checked() -> None:
    assert RepairDoor().find("nad") is repairs.find("nad")
    assert InspectorDoor().find("mm-bd") is inspectors.find("mm-bd")
    with pytest.raises(UsageError, match="clean_models"):
        InspectorDoor(clean_models=0)
    with pytest.raises(UsageError, match="false_alarm_rate must be between 0 and 1, not 1"):
        InspectorDoor(false_alarm_rate=1)
