from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from foretaste.cleansers.asset import ASSET, end_of_lower_half, losses_of, unlikelihood
from foretaste.cleansers.verdict import Detection
from foretaste.errors import UsageError
from foretaste.progress import silent

if TYPE_CHECKING:
    from tests.cleansers.conftest import Hills, Scene


def test_unlikelihood_is_minus_the_log_of_the_other_labels_probability() -> None:
    logits, labels = torch.tensor([[2.0, 1.0, 0.0], [0.0, 30.0, 0.0]]), torch.tensor([0, 2])
    own = logits.softmax(dim=1)[torch.arange(2), labels]
    assert float(unlikelihood(logits, labels)) == pytest.approx(float(-(1 - own).log().mean()), rel=1e-5)
    # It stays finite where the own label is all but certain.
    assert float(unlikelihood(torch.tensor([[200.0, 0.0]]), torch.tensor([0]))) == pytest.approx(200)


def test_losses_are_cross_entropies() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1])
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(labels), reduction="none"
    ).numpy()
    assert losses_of(logits, labels) == pytest.approx(expected, rel=1e-5)


def test_the_threshold_is_where_a_normal_density_ends() -> None:
    losses = np.random.default_rng(0).normal(5, 0.5, 20_000)
    # 0.001 = exp(-z² / 2) / (0.5 √2π) at z = 3.66.
    assert end_of_lower_half(losses, 1e-3) == pytest.approx(5 + 0.5 * 3.66, abs=0.05)
    assert end_of_lower_half(np.concatenate([losses, np.full(2000, 20.0)]), 1e-3) < 7.5


def test_badnets_stays_unlearnt_and_untargeted_poison_does_not(hill_scenes: dict[str, "Scene"]) -> None:
    found: dict[str, list[Detection]] = {"badnets": [], "untargeted": []}
    for name, some in found.items():
        one = hill_scenes[name]
        method = ASSET(**one.victim, steps=100, offset_batch_size=64, offset_learning_rate=3e-3)
        for seed in (2, 1, 0):
            verdict = method.inspect(one.samples, one.clean, seed=seed, workdir=one.workdir, on_progress=silent)
            some.append(verdict.compare(one.poison))
        again = method.inspect(one.samples, one.clean, seed=0, workdir=one.workdir, on_progress=silent)
        assert np.array_equal(verdict.scores, again.scores)
    # One classifier in five learns the patch so badly that a fifth of the poison passes.
    assert np.median([detection.tpr for detection in found["badnets"]]) > 0.9
    assert np.median([detection.fpr for detection in found["badnets"]]) < 0.05
    # Each trigger has many labels: no classifier learns it, and AUROC is 0.46 to 0.66.
    assert np.median([detection.tpr for detection in found["untargeted"]]) < 0.5
    assert np.median([detection.auroc for detection in found["untargeted"]]) < 0.8


def test_without_a_clean_set_it_is_refused(hills: "Hills") -> None:
    with pytest.raises(UsageError, match="give a clean set"):
        ASSET().inspect(hills(40), None, seed=0, workdir=None, on_progress=silent)


@pytest.mark.parametrize("fields", [{"steps": 0}, {"batch_size": 1}, {"learning_rate": 0.0}, {"density": 1.0}])
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        ASSET(**fields)
