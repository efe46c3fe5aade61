"""Labels for which Neural Cleanse finds no trigger, and searches that are short."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foretaste.errors import UsageError
from foretaste.inspectors import Diagnosis, inspect
from foretaste.inspectors.inversion import Inverted, invert
from foretaste.inspectors.neural_cleanse import NeuralCleanse
from foretaste.progress import silent
from foretaste.samples import Samples

SIDE, K = 8, 12


class First(nn.Module):
    """Names the label that the first pixel is, but for a bias."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = bias * torch.eye(K)[2]

    def forward(self, images: Tensor) -> Tensor:
        distances: Tensor = (images[:, 0, 0].float().mean(dim=1, keepdim=True) - torch.arange(K)).abs()
        return self.bias - distances


@pytest.fixture
def clean() -> Samples:
    labels = np.arange(48) % K
    images = np.broadcast_to(labels[:, None, None, None], (48, SIDE, SIDE, 1)).astype(np.uint8)
    return Samples.from_arrays(images, labels, [str(label) for label in range(K)])


def judged(sizes: list[float], found: list[bool], clean: Samples, monkeypatch: pytest.MonkeyPatch) -> Diagnosis:
    """Return the diagnosis where masks have these sizes in pixels, and some of them are of triggers."""
    pattern = np.zeros((SIDE, SIDE, 1), dtype=np.float32)
    triggers = [
        Inverted(label, np.full((SIDE, SIDE, 1), size / SIDE**2, dtype=np.float32), pattern, succeeded)
        for label, (size, succeeded) in enumerate(zip(sizes, found, strict=True))
    ]
    monkeypatch.setattr(NeuralCleanse, "invert", lambda *_: triggers)
    return inspect(First(), clean, method="neural-cleanse")


SIZES = [20.0, 22, 25, 27, 30, 31, 33, 35, 36, 40, 41, 45]


def test_a_small_mask_that_never_worked_is_no_suspect(clean: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [0.5, *SIZES[1:]]
    assert judged(sizes, [True] * K, clean, monkeypatch).suspect_classes == (0,)
    found = judged(sizes, [False] + [True] * (K - 1), clean, monkeypatch)
    assert found.suspect_classes == ()
    [entry] = [entry for entry in found.evidence if entry.target == 0]
    assert entry is found.evidence[-1]
    assert entry.reason == "no trigger was found that forces it"


@pytest.mark.parametrize("n_found", [0, 1, 5, 6, 7])
def test_large_triggers_are_no_suspects_where_other_labels_have_none(
    clean: Samples, monkeypatch: pytest.MonkeyPatch, n_found: int
) -> None:
    found = judged(SIZES, [True] * n_found + [False] * (K - n_found), clean, monkeypatch)
    assert found.suspect_classes == ()
    assert found.p_value > 0.05


def test_a_small_trigger_stands_out_where_a_third_of_the_labels_has_none(
    clean: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged([0.5, *SIZES[1:]], [True] * 8 + [False] * 4, clean, monkeypatch)
    assert found.suspect_classes == (0,)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_short_search_can_succeed(clean: Samples, steps: int) -> None:
    found = invert(
        First(bias=100),
        clean,
        [2, 3],
        steps=steps,
        images=16,
        learning_rate=0.1,
        success=0.95,
        cost=0.01,
        seed=0,
        phase="invert",
        on_progress=silent,
    )
    assert [one.succeeded for one in found] == [True, False]


def test_a_share_that_a_running_mean_never_reaches_is_refused() -> None:
    with pytest.raises(UsageError, match="success must be in"):
        NeuralCleanse(success=1.0)
    assert 1 - 0.8**NeuralCleanse.steps >= 0.999
