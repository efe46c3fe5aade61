from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from foretaste.cleansers._base.victim import Victim
from foretaste.cleansers.sentinet import SentiNet, boundary_of, grad_cam
from foretaste.errors import UsageError
from foretaste.nets import build
from foretaste.progress import silent
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.cleansers.conftest import Scene


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


def test_badnets_fools_other_images(badnets_scene: "Scene") -> None:
    one = badnets_scene
    method = SentiNet(**one.victim, overlays=8, calibration=60)
    verdict = method.inspect(one.samples, one.clean, seed=0, workdir=one.workdir, on_progress=silent)
    assert verdict.compare(one.poison).fpr < 0.15
    assert np.isfinite(verdict.scores).all()
    assert verdict.scores[one.poison].mean() > verdict.scores[~one.poison].mean()


@pytest.mark.parametrize("name", ["vit", "compact-resnet"])
def test_nets_without_maps_are_refused(name: str) -> None:
    images = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    victim = untrained(name, 16)
    if name == "compact-resnet":
        victim.net._stage_ends = (5,)  # whose maps have one place
    with pytest.raises(UsageError, match="take another net or larger images"):
        grad_cam(victim, images, 0.5)


def test_feature_vectors_and_too_few_clean_samples_are_refused(badnets_scene: "Scene") -> None:
    rows = Samples.from_arrays(np.zeros((20, 3), dtype=np.float32), np.arange(20) % 2)
    with pytest.raises(UsageError, match="sentinet works on images"):
        SentiNet().inspect(rows, None, seed=0, workdir=None, on_progress=silent)
    one = badnets_scene
    with pytest.raises(UsageError, match="8 clean samples or more, not 3"):
        SentiNet().inspect(one.samples, one.clean[:3], seed=0, workdir=None, on_progress=silent)


@pytest.mark.parametrize("fields", [{"threshold": 1.0}, {"overlays": 0}, {"calibration": 3}, {"substitute": 7}])
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        SentiNet(**fields)
