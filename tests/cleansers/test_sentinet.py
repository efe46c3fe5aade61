from typing import Any

import numpy as np
import pytest
import torch

from foretaste.cleansers._base.victim import Victim
from foretaste.cleansers.sentinet import SentiNet, boundary_of, grad_cam
from foretaste.errors import UsageError
from foretaste.nets import build
from foretaste.progress import silent
from foretaste.samples import Samples


def untrained(name: str, side: int) -> Victim:
    net = build(name, (side, side, 3), ("a", "b"), generator=torch.Generator().manual_seed(0), width=4)
    return Victim(net=net, key="", cache=None)


def test_grad_cam_weighs_the_maps_by_their_mean_gradients() -> None:
    victim = untrained("convnet", 32)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    labels, regions = grad_cam(victim, images, 0.5)
    assert labels.tolist() == victim.predict(images).argmax(axis=1).tolist()
    # The last stage, of 4×4 places, is averaged and goes into the head: the gradient is the head's row over 16.
    with torch.no_grad():
        maps = victim.net.eval().body[:15](victim.net.preprocess(torch.from_numpy(images)))
        weights = victim.net.head.weight[labels] / 16
        cam = (maps * weights[:, :, None, None]).sum(dim=1, keepdim=True).relu()
        cam = torch.nn.functional.interpolate(cam, (32, 32), mode="bilinear")[:, 0]
    assert np.array_equal(regions, (cam > 0.5 * cam.amax(dim=(1, 2), keepdim=True)).numpy())


def test_the_boundary_goes_through_the_highest_of_each_tenth() -> None:
    confidence = np.array([0.15, 0.45, 0.75, 0.45, 0.76])
    fooled = np.array([0.9, 0.4, 0.3, 0.1, 0.0])
    boundary = boundary_of(fooled, confidence)
    assert np.polyval(boundary, [0.15, 0.45, 0.75]) == pytest.approx([0.9, 0.4, 0.3])
    assert boundary_of(fooled[:1], confidence[:1]) == pytest.approx([0.9])


def sees_red() -> Victim:
    """Return a classifier that says "b" if it sees enough red, wherever it is."""
    victim = untrained("convnet", 32)
    with torch.no_grad():
        for module in victim.net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.zero_()
                module.weight[0, 0, 1, 1] = 1
        victim.net.head.weight.zero_()
        victim.net.head.weight[1, 0] = 100
        victim.net.head.bias.copy_(torch.tensor([5.0, 0.0]))
    return victim


def test_a_patch_fools_other_images_and_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 10, (60, 32, 32, 3), dtype=np.uint8)
    images[:10, 20:29, 20:29, 0] = 255
    samples, clean = Samples.from_arrays(images, np.arange(60) % 2), images[30:].copy()
    monkeypatch.setattr(SentiNet, "victim", lambda *_: sees_red())
    trusted = Samples.from_arrays(clean, np.arange(30) % 2)
    verdict = SentiNet(overlays=8).inspect(samples, trusted, seed=0, workdir=None, on_progress=silent)
    assert verdict.flagged.tolist() == [True] * 10 + [False] * 50
    assert verdict.scores[:10] == pytest.approx(1, abs=0.01)


def test_overlays_that_have_the_label_already_are_not_fooled() -> None:
    plain = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    fooled, confidence = SentiNet().measure(sees_red(), plain, plain, np.random.default_rng(0))
    assert fooled.tolist() == [0, 0, 0]
    assert (confidence > 0.99).all()


@pytest.mark.parametrize("name", ["vit", "compact-resnet"])
def test_nets_without_maps_are_refused(name: str) -> None:
    images = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    victim = untrained(name, 16)
    if name == "compact-resnet":
        victim.net._stage_ends = (5,)  # whose maps have one place
    with pytest.raises(UsageError, match="take another net or larger images"):
        grad_cam(victim, images, 0.5)


def test_feature_vectors_and_too_few_clean_samples_are_refused() -> None:
    rows = Samples.from_arrays(np.zeros((20, 3), dtype=np.float32), np.arange(20) % 2)
    with pytest.raises(UsageError, match="sentinet works on images"):
        SentiNet().inspect(rows, None, seed=0, workdir=None, on_progress=silent)
    images = Samples.from_arrays(np.zeros((20, 32, 32, 3), dtype=np.uint8), np.arange(20) % 2)
    with pytest.raises(UsageError, match="8 clean samples or more, not 3"):
        SentiNet().inspect(images, images[:3], seed=0, workdir=None, on_progress=silent)


@pytest.mark.parametrize("fields", [{"threshold": 1.0}, {"overlays": 0}, {"calibration": 3}, {"substitute": 7}])
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        SentiNet(**fields)
