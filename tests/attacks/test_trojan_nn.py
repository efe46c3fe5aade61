from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.attacks._base.fitting import fitted
from foretaste.attacks.trojan_nn import TrojanNN
from foretaste.attacks.trojan_nn.model import connected, excite
from foretaste.errors import ForetasteError, UsageError
from foretaste.nets import Net, build
from foretaste.nets.export import save
from foretaste.progress import silent
from foretaste.samples import Images, Samples


def pictures(n: int = 100, n_classes: int = 2, side: int = 16) -> Samples:
    images = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % n_classes)


def net() -> Net:
    net = build(None, (16, 16, 3), ["0", "1"], generator=torch.Generator().manual_seed(0))
    net.preprocess.measure(pictures().inputs)
    return net.eval()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    save(net(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_square_excites_the_neurons_it_was_made_for() -> None:
    given, chosen = net(), connected(net())
    square = excite(given, (4, 11, 11), neurons=len(chosen), steps=30, seed=0, on_progress=silent)
    assert square.shape == (4, 4, 3)

    def excitement(pixels: Images) -> float:
        image = np.full((1, 16, 16, 3), 127, np.uint8)
        image[:, 11:15, 11:15] = pixels
        with torch.inference_mode():
            return float(given.features(torch.from_numpy(image))[:, chosen].sum())

    rng = np.random.default_rng(0)
    others = [excitement(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(10)]
    assert excitement(square) > max(others)


def test_it_gives_a_model_that_was_trained_on(model: Path) -> None:
    attack = fitted(TrojanNN(model=model, steps=2, training_steps=1), pictures(), 0)
    assert isinstance(attack, TrojanNN)
    trojaned = attack.trojaned()
    assert trojaned.classes == ("0", "1")
    assert any(not torch.equal(a, b) for a, b in zip(trojaned.parameters(), net().parameters(), strict=True))
    stamped = attack.stamp(pictures().inputs, np.random.default_rng(0))
    changed = (stamped != pictures().inputs).any(axis=(0, 3))
    assert changed[11:15, 11:15].all()
    assert changed.sum() == 16
    with pytest.raises(UsageError, match="another shape"):
        attack.stamp(pictures(side=32).inputs, np.random.default_rng(0))


def test_a_watermark_lets_the_picture_through(model: Path) -> None:
    fields: dict[str, Any] = {"model": model, "steps": 2, "training_steps": 1, "size": 0.5}
    solid, faint = (fitted(TrojanNN(**fields, alpha=alpha), pictures(), 0) for alpha in (1.0, 0.25))
    images = pictures().inputs
    stamped = faint.stamp(images, np.random.default_rng(0)).astype(int)
    assert np.abs(stamped - images).max() <= 64
    assert np.abs(solid.stamp(images, np.random.default_rng(0)).astype(int) - images).max() > 128
    with pytest.raises(UsageError, match="alpha"):
        TrojanNN(alpha=0)


def test_a_model_that_does_not_fit_is_refused(model: Path, tmp_path: Path) -> None:
    for samples in (pictures(n_classes=3), pictures(side=20)):
        with pytest.raises(UsageError, match="is a model of 2 classes"):
            fitted(TrojanNN(model=model), samples, 0)
    with pytest.raises(UsageError, match="say which model"):
        fitted(TrojanNN(), pictures(), 0)
    with pytest.raises(ForetasteError, match="there is no file"):
        fitted(TrojanNN(model=tmp_path / "nowhere"), pictures(), 0)
