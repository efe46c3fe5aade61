"""A guard comes to the same verdicts however it asks its model."""

import sys
import textwrap
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from foretaste import Guard, Screening
from foretaste.attacks import BadNets, poison_training_set
from foretaste.classifiers import open_classifier
from foretaste.nets import Net
from foretaste.nets.export import export_onnx, save
from foretaste.samples import Images, Samples
from foretaste.training import TrainingPlan, train

ATTACK = BadNets(rate=0.2, target=1, size=0.2)


def spots(n: int, seed: int) -> Samples:
    """Return images whose class is where their bright spot is."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    centres = np.array([(5, 5), (5, 10), (10, 5), (10, 10)])[labels] + rng.normal(0, 0.5, (n, 2))
    places = np.arange(16)
    distance = (places[:, None] - centres[:, :1, None]) ** 2 + (places - centres[:, 1:, None]) ** 2
    images = 50 + 150 * np.exp(-distance / 9)[..., None] + rng.normal(0, 15, (n, 16, 16, 3))
    return Samples.from_arrays(images.clip(0, 255).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a backdoored model, in every form that lies on disk."""
    folder = tmp_path_factory.mktemp("model")
    poisoned = poison_training_set(spots(800, seed=0), ATTACK, seed=0)
    net: Net = train(poisoned.samples, plan=TrainingPlan(epochs=12, shift=0), seed=0).net
    save(net, folder / "model.safetensors")
    export_onnx(net, folder / "model.onnx")
    code = f"""
        import onnxruntime
        session = onnxruntime.InferenceSession({str(folder / "model.onnx")!r})
        def classify(images):
            return session.run(None, {{"images": images}})[0]
    """
    (folder / "guarded_model.py").write_text(textwrap.dedent(code))
    return folder


@pytest.fixture(scope="module")
def inputs() -> Images:
    """Return a dozen images, half of them with the trigger."""
    some = spots(12, seed=2).inputs
    return np.concatenate([some[:6], ATTACK.stamp(some[6:], np.random.default_rng(0))])


def screened(model: str, inputs: Images) -> Screening:
    return Guard(open_classifier(model), spots(60, seed=1), false_alarm_rate=0.05).screen(inputs)


@pytest.fixture(scope="module")
def expected(model: Path, inputs: Images) -> Screening:
    """Return what is said of them where the torch module is asked."""
    return screened(str(model / "model.safetensors"), inputs)


def assert_same(screening: Screening, expected: Screening) -> None:
    for field in fields(Screening):
        np.testing.assert_array_equal(getattr(screening, field.name), getattr(expected, field.name), field.name)


def test_the_trigger_is_found(expected: Screening) -> None:
    labels = np.arange(12) % 4
    turned = (np.arange(12) >= 6) & (labels != ATTACK.target)
    assert expected.trojaned[turned].all()
    assert not expected.trojaned[:6].any()
    assert (expected.corrected[turned] == labels[turned]).all()


@pytest.mark.parametrize("name", ["model.onnx", "guarded_model:classify"])
def test_the_same_verdicts(
    name: str, model: Path, inputs: Images, expected: Screening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert_same(screened(name, inputs), expected)


@pytest.mark.mlserver
def test_a_real_model_server_gives_the_same_verdicts(
    model: Path, inputs: Images, expected: Screening, serve_onnx: Callable[[Path], str]
) -> None:
    assert_same(screened(serve_onnx(model / "model.onnx"), inputs), expected)
