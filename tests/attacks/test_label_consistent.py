import numpy as np
import pytest
import torch
from scipy.special import softmax

from foretaste.attacks.label_consistent.label_consistent import LabelConsistent, perturb, with_corners
from foretaste.errors import UsageError
from foretaste.nets import build
from foretaste.samples import Images
from foretaste.training import predict


def noise(n: int = 6, side: int = 16, channels: int = 3) -> Images:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_corners_are_black_and_white_and_mirrored_and_nothing_else_changes(channels: int) -> None:
    images = noise(channels=channels)
    stamped = LabelConsistent().stamp(images, np.random.default_rng(0))
    corner = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 255]])
    for channel in range(channels):
        for image in stamped[..., channel]:
            np.testing.assert_array_equal(image[-3:, -3:], corner)
            np.testing.assert_array_equal(image[-3:, :3], corner[:, ::-1])
            np.testing.assert_array_equal(image[:3, -3:], corner[::-1])
            np.testing.assert_array_equal(image[:3, :3], corner[::-1, ::-1])
    rest = np.ones((16, 16), dtype=bool)
    for rows in (slice(0, 3), slice(13, 16)):
        for columns in (slice(0, 3), slice(13, 16)):
            rest[rows, columns] = False
    np.testing.assert_array_equal(stamped[:, rest], images[:, rest])


def test_a_small_amplitude_brightens_and_darkens_a_little() -> None:
    grey = np.full((1, 8, 8, 1), 100, np.uint8)
    values = with_corners(grey, 16)[0, -3:, -3:, 0]
    np.testing.assert_array_equal(values, [[84, 84, 116], [84, 116, 84], [116, 84, 116]])


def test_the_perturbation_keeps_its_bound_and_hides_the_class() -> None:
    images = noise(40)
    net = build(None, (16, 16, 3), ["a", "b", "c"], generator=torch.Generator().manual_seed(0)).eval()
    hidden = perturb(net, images, 1, 8, 10, np.random.default_rng(0))
    assert np.abs(hidden.astype(int) - images).max() <= 8

    def chance(pictures: Images) -> float:
        return float(softmax(predict(net, pictures), axis=1)[:, 1].mean())

    assert chance(hidden) < chance(images)


@pytest.mark.parametrize("fields", [{"epsilon": -1.0}, {"epsilon": 256.0}, {"iterations": 0}, {"amplitude": 0.0}])
def test_fields_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        LabelConsistent(**fields)  # type: ignore[arg-type]
