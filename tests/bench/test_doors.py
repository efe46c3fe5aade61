"""The doors of the model: repaired models are judged, and what inspectors say is held against clean models."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from torch import nn

from foretaste import inspectors, repairs
from foretaste.bench.doors import InspectorDoor, RepairDoor
from foretaste.bench.records import Record
from foretaste.errors import UsageError
from foretaste.inspectors import Evidence, Finding, Subject
from foretaste.progress import OnProgress
from foretaste.repairs import Mended
from foretaste.samples import Samples

from .conftest import Name, run

SPEC = """
[[data]]
source = "train.npz"
test = "test.npz"
clean = 40

[[attacks]]
name = "none"

[[attacks]]
name = "badnets"
rates = [0.1]
set = { size = 0.2, target = 1 }

[[networks]]
name = "compact-resnet"
set = { epochs = 15, width = 8, batch_size = 20, shift = 0 }
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with images whose class is where their bright spot is, and which are learnt in no time."""
    for name, n, seed in (("train", 200, 0), ("test", 120, 1)):
        rng, labels = np.random.default_rng(seed), np.arange(n) % 4
        images = rng.integers(0, 90, (n, 16, 16, 3), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            y, x = 2 + 6 * (label // 2), 2 + 6 * (label % 2)
            image[y : y + 4, x : x + 4] += 120
        np.savez(tmp_path / f"{name}.npz", x=images, y=labels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def measured(place: Path, defences: str) -> dict[Name, Record]:
    """Try defences on the models of this folder's images, poisoned and not."""
    (place / "spec.toml").write_text(SPEC + defences)
    return run(place)[1]


@dataclass(frozen=True, kw_only=True)
class AlwaysTwo:
    """Has the model answer class 2, whatever it is asked, if it is given what it needs."""

    name: ClassVar[str] = "always-two"
    summary: ClassVar[str] = "answers class 2"
    needs_training_set: ClassVar[bool] = True
    fewest_clean: ClassVar[int] = 40

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        assert train is not None
        assert clean is not None
        assert (len(train), len(clean)) == (200, 40)
        assert isinstance(net.head, nn.Linear)
        net.head.weight.data[:] = 0
        net.head.bias.data[2] = 1e9
        return Mended(net=net)


def test_a_repaired_model_is_judged_as_it_was_before(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(repairs.REPAIRS, "always-two", AlwaysTwo)
    found = measured(place, '[[repairs]]\nname = "always-two"\n[[repairs]]\nname = "fine-pruning"\n')
    assert [record.failed for record in found.values()] == [None] * 4
    for attack in (None, "badnets"):
        mended, pruned = (found[attack, name, False].figures for name in ("always-two", "fine-pruning"))
        assert (mended["accuracy_before"] or 0) > 0.8
        assert mended["accuracy_after"] == pytest.approx(0.25, abs=0.1)  # some of the test set are the clean set
        # The second repair had the same model to work on, and it was as it had been.
        assert pruned["accuracy_before"] == mended["accuracy_before"]
        assert pruned["attack_success_before"] == mended["attack_success_before"]
        assert (pruned["accuracy_after"] or 0) > 0.5
    assert (mended["attack_success_before"] or 0) > 0.5
    assert mended["attack_success_after"] == 0  # the attack forces class 1
    assert found[None, "always-two", False].figures["attack_success_after"] is None


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
    artefacts = [path.name.partition("-")[0] for path in (place / "out/artefacts").iterdir()]
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
