import numpy as np
import pytest
import torch

from foretaste.attacks._base.universal import added, universal_perturbation
from foretaste.errors import UsageError
from foretaste.nets import Net, build
from foretaste.progress import silent
from foretaste.samples import Images
from foretaste.training import predict

EPSILON = 12.0


def images() -> Images:
    rng = np.random.default_rng(0)
    return rng.integers(60, 190, (200, 16, 16, 1), dtype=np.uint8)


@pytest.fixture
def net() -> Net:
    return build("convnet", (16, 16, 1), ("a", "b", "c"), generator=torch.Generator().manual_seed(3), width=4).eval()


def test_one_small_change_turns_most_images(net: Net) -> None:
    batch = images()
    before = predict(net, batch).argmax(axis=1)
    target = int(np.bincount(before, minlength=3).argmin())
    found = universal_perturbation(net, batch, target, epsilon=EPSILON, steps=30, seed=0, on_progress=silent)
    assert found.dtype == np.int16
    assert 0 < np.abs(found).max() <= EPSILON
    margins = [
        logits[:, target] - np.delete(logits, target, axis=1).max(axis=1)
        for logits in (predict(net, batch), predict(net, added(batch, found)))
    ]
    # Found on these images: every one of them moves towards the target class.
    assert (margins[1] > margins[0]).mean() > 0.95
    again = universal_perturbation(net, batch, target, epsilon=EPSILON, steps=30, seed=0, on_progress=silent)
    np.testing.assert_array_equal(found, again)


def test_what_is_added_is_clipped_and_of_the_same_shape() -> None:
    change = np.full((8, 8, 1), 100, np.int16)
    assert (added(np.full((1, 8, 8, 1), 200, np.uint8), change) == 255).all()
    assert (added(np.full((1, 8, 8, 1), 10, np.uint8), change, -1.0) == 0).all()
    assert (added(np.full((1, 8, 8, 1), 10, np.uint8), change, 0.5) == 60).all()
    with pytest.raises(UsageError, match="another shape"):
        added(np.zeros((1, 9, 8, 1), np.uint8), change)
    with pytest.raises(UsageError, match="images only"):
        added(np.zeros((1, 8), np.float32), change)
