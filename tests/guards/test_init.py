import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import foretaste
from foretaste import guards, plugins
from foretaste.classifiers.classifier import Classifier
from foretaste.classifiers.torch_module import TorchModule
from foretaste.errors import ForetasteError, UsageError
from foretaste.guards import GUARDS, Guard
from foretaste.guards.guard import GuardMethod, Screener
from foretaste.guards.strip import STRIP
from foretaste.samples import Images, Samples


@pytest.mark.parametrize("name", GUARDS)
def test_every_built_in_guard_keeps_to_the_protocol(name: str) -> None:
    guard = GUARDS[name]
    assert guard.name == name
    assert guard.summary
    assert isinstance(guard(), GuardMethod)
    assert guards.find(name) is guard


def test_a_guard_screens(corners: Classifier, clean: Samples, trojaned: Images) -> None:
    guard = foretaste.Guard(corners, clean, "strip", false_alarm_rate=0.05, seed=3, overlays=10)
    assert guard.method == STRIP(overlays=10)
    assert isinstance(guard.screener, Screener)
    screening = guard.screen(trojaned)
    assert screening.trojaned.all()
    assert screening.queries.tolist() == [11] * len(trojaned)
    assert len(guard.screen(trojaned[:0])) == 0


class Halves(nn.Module):
    """Tells which half of an image is lighter, 0 the upper or 1 the lower."""

    def forward(self, images: Tensor) -> Tensor:
        rows = images.float().mean(dim=(2, 3))
        return torch.stack([half.mean(dim=1) for half in rows.chunk(2, dim=1)], dim=1)


@pytest.mark.parametrize("name", GUARDS)
def test_every_guard_screens_no_images_at_all(name: str) -> None:
    classifier = TorchModule(Halves())  # as most classifiers do, it tells no scores of no images
    pixels = np.random.default_rng(0).integers(0, 256, (80, 28, 28, 1), dtype=np.uint8)
    clean = Samples.from_arrays(pixels, classifier.classify(pixels).labels)
    screener = GUARDS[name]().calibrate(classifier, clean, false_alarm_rate=0.1, seed=0)
    screening = screener.screen(pixels[:0])
    assert [len(array) for array in vars(screening).values()] == [0] * 6


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"method": "nonesuch"}, "no guard 'nonesuch'; known: .*strip"),
        ({"size": 3}, "strip has no hyperparameter 'size'; it has: overlays"),
        ({"overlays": 0}, "overlays must be 1 or more"),
        ({"false_alarm_rate": 0.0}, "between 0 and 1, not 0"),
        ({"false_alarm_rate": 1.0}, "between 0 and 1, not 1"),
        ({"false_alarm_rate": float("nan")}, "between 0 and 1, not nan"),
    ],
)
def test_settings_that_make_no_sense_are_bad_usage(
    more: dict[str, Any], complaint: str, corners: Classifier, clean: Samples
) -> None:
    with pytest.raises(UsageError, match=complaint):
        Guard(corners, clean, **({"method": "strip"} | more))


def images(n: int, side: int = 28) -> Samples:
    return Samples.from_arrays(np.zeros((n, side, side, 1), np.uint8), np.arange(n) % 2)


@pytest.mark.parametrize(
    ("unfit", "complaint"),
    [
        (images(0), "has 0 images; a guard needs 20 or more"),
        (images(19), "has 19 images; a guard needs 20 or more"),
        (images(40)[::2], "all of one class"),
        (images(40, side=30), r"shape \(30, 30, 1\), and the model takes \(28, 28, 1\)"),
        (Samples.from_arrays(np.zeros((30, 5), np.float32), np.arange(30) % 2), "feature vectors"),
    ],
)
@pytest.mark.parametrize("method", ["strip", "scale-up", "teco", "all"])
def test_an_unfit_clean_set_is_refused(method: str, unfit: Samples, complaint: str, corners: Classifier) -> None:
    with pytest.raises(UsageError, match=complaint):
        Guard(corners, unfit, method)
    with pytest.raises(UsageError, match=complaint):
        GUARDS[method]().calibrate(corners, unfit, false_alarm_rate=0.01, seed=0)


@pytest.mark.parametrize("method", ["strip", "scale-up", "teco"])
def test_inputs_of_another_shape_are_refused(method: str, corners: Classifier, clean: Samples) -> None:
    guard = Guard(corners, clean[:20], method, false_alarm_rate=0.1)
    with pytest.raises(UsageError, match="must be images uint8"):
        guard.screen(np.zeros((3, 30, 30, 1), np.uint8))


def test_another_package_can_add_a_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    added = [
        EntryPoint("added", "foretaste.guards.strip:STRIP", guards.PLUGINS),
        EntryPoint("broken", "no_such_module:Thing", guards.PLUGINS),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda **wanted: EntryPoints(added).select(**wanted))
    assert {"added", "broken", "strip", "scale-up", "teco", "all"} <= set(guards.names())
    assert guards.find("added") is STRIP
    with pytest.raises(ForetasteError, match="guard broken from no_such_module:Thing cannot be loaded"):
        guards.find("broken")


def test_importing_the_registry_does_not_load_torch() -> None:
    code = "import sys, foretaste.guards; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
