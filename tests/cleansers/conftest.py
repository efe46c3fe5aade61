import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.attacks import poison_training_set
from foretaste.attacks._base.attack import Attack
from foretaste.attacks.all_to_all import BadNetsAllToAll
from foretaste.attacks.badnets import BadNets
from foretaste.attacks.untargeted import BadNetsUntargeted
from foretaste.io.signs import SIGNS, draw_plate, photograph
from foretaste.samples import Mask, Samples


@pytest.fixture
def art_poison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what the Adversarial Robustness Toolbox has against poison, its configuration kept out of the home."""
    # It writes a file there when it is imported, which another process that imports it may read half written.
    monkeypatch.setenv("HOME", str(tmp_path))
    return importlib.import_module("art.defences.detector.poison")


Hills = Callable[..., Samples]
"""Draws so many images whose class is where their bright spot is."""


@pytest.fixture(scope="session")
def hills() -> Hills:
    """Return what draws images that are quick to draw and to learn."""

    def draw(n: int, seed: int = 0, side: int = 16, channels: int = 3, n_classes: int = 4) -> Samples:
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % n_classes
        angle = 2 * np.pi * labels / n_classes
        x = side * (0.5 + 0.25 * np.cos(angle)) + rng.normal(0, 0.7, n)
        y = side * (0.5 + 0.25 * np.sin(angle)) + rng.normal(0, 0.7, n)
        places = np.arange(side)
        distance = (places[:, None] - y[:, None, None]) ** 2 + (places - x[:, None, None]) ** 2
        spot = np.exp(-distance / (2 * (side / 6) ** 2))[..., None]
        noise = rng.normal(0, 12, (n, side, side, channels))
        images = 60 + 120 * spot * rng.uniform(0.6, 1.2, (n, 1, 1, channels)) + noise
        return Samples.from_arrays(images.clip(0, 255).astype(np.uint8), labels)

    return draw


@dataclass(frozen=True)
class Groups:
    """Samples with features: classes are normal groups, and poison is where its label's class is not."""

    samples: Samples
    features: NDArray[np.float32]
    poison: Mask


DrawGroups = Callable[..., Groups]


@pytest.fixture(scope="session")
def draw_groups() -> DrawGroups:
    """Return what draws features of classes that the first of has a second group of poison in."""

    def draw(n_poison: int = 20, n: int = 100, n_classes: int = 8, away: float = 8.0, seed: int = 0) -> Groups:
        rng = np.random.default_rng(seed)
        centres = 10 * rng.normal(size=(n_classes, 12))
        labels = np.arange(n * n_classes) % n_classes
        features = centres[labels] + rng.normal(size=(len(labels), 12)) * np.linspace(2, 0.5, 12)
        direction = rng.normal(size=12)
        place = centres[0] + away * direction / np.linalg.norm(direction)
        poison = place + 0.3 * rng.normal(size=(n_poison, 12))
        rows: NDArray[np.float32] = np.concatenate([features, poison]).astype(np.float32)
        labels = np.concatenate([labels, np.zeros(n_poison, dtype=np.int64)])
        inputs = rng.integers(0, 256, (len(labels), 16, 16, 3), dtype=np.uint8)
        return Groups(Samples.from_arrays(inputs, labels), rows, np.arange(len(labels)) >= n * n_classes)

    return draw


@dataclass(frozen=True)
class Scene:
    """A poisoned set, some clean samples, and a folder where the classifier trained on it is kept.

    Attributes:
        victim: hyperparameters of the classifier.
    """

    samples: Samples
    poison: Mask
    clean: Samples
    workdir: Path
    victim: dict[str, Any]


@pytest.fixture(scope="session")
def few_signs() -> tuple[Samples, Samples]:
    """Return signs of six classes, of 16 pixels: 600 to poison, and 240 clean ones."""
    plates = [draw_plate(draw) for draw in list(SIGNS.values())[:6]]

    def draw(n: int, seed: int) -> Samples:
        # Those that draw_signs gives these classes, without drawing the others.
        rows = [row for row in range(n) if row % len(SIGNS) < len(plates)]
        labels = np.array(rows) % len(SIGNS)
        images = np.stack([photograph(plates[row % len(SIGNS)], np.random.default_rng([seed, row])) for row in rows])
        halves = images.reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4)).round().astype(np.uint8)
        return Samples.from_arrays(halves, labels, tuple(SIGNS)[:6], [f"{seed}-{row}" for row in rows])

    return draw(1600, 0), draw(640, 1)


def scene(sets: tuple[Samples, Samples], attack: Attack, folder: Path, **victim: Any) -> Scene:
    poisoned = poison_training_set(sets[0], attack, 0)
    settings = {"net": "compact-resnet", "width": 8, "epochs": 40} | victim
    return Scene(poisoned.samples, poisoned.poison, sets[1], folder, settings)


@pytest.fixture(scope="session")
def badnets_scene(few_signs: tuple[Samples, Samples], tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Return signs of which 6 % carry a patch and one label."""
    return scene(few_signs, BadNets(rate=0.06, target=0, size=0.3), tmp_path_factory.mktemp("badnets"))


@pytest.fixture(scope="session")
def more_badnets_scene(few_signs: tuple[Samples, Samples], tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Return signs of which 8 % carry a patch and one label: a third of its class."""
    return scene(few_signs, BadNets(rate=0.08, target=0, size=0.3), tmp_path_factory.mktemp("more-badnets"))


@pytest.fixture(scope="session")
def all_to_all_scene(few_signs: tuple[Samples, Samples], tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Return signs of which 15 % carry a patch and the next class's label."""
    return scene(few_signs, BadNetsAllToAll(rate=0.15, size=0.3), tmp_path_factory.mktemp("all-to-all"))


@pytest.fixture(scope="session")
def untargeted_scene(few_signs: tuple[Samples, Samples], tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Return signs of which 15 % carry a patch and any other class's label."""
    return scene(few_signs, BadNetsUntargeted(rate=0.15, size=0.3), tmp_path_factory.mktemp("untargeted"))


@pytest.fixture(scope="session")
def hill_scenes(hills: Hills, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    """Return sets of which 15 % carry a patch that a small network learns well on any machine, by attack."""
    attacks: dict[str, Attack] = {
        "badnets": BadNets(rate=0.15, target=0, size=0.3),
        "all-to-all": BadNetsAllToAll(rate=0.15, size=0.3),
        "untargeted": BadNetsUntargeted(rate=0.15, size=0.3),
    }
    sets = hills(600), hills(240, 1)
    return {
        name: scene(sets, attack, tmp_path_factory.mktemp(name), epochs=20, shift=0) for name, attack in attacks.items()
    }
