from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from foretaste.cleansers._base.victim import Victim
from foretaste.cleansers.psbd import PSBD, dropout, shifts
from foretaste.errors import UsageError
from foretaste.nets import build
from foretaste.progress import silent
from foretaste.training import draws

if TYPE_CHECKING:
    from tests.cleansers.conftest import Scene


def test_dropout_zeroes_a_share_and_scales_the_rest() -> None:
    layer = torch.nn.Identity()
    with dropout((layer,), 0.25, torch.Generator().manual_seed(0)):
        dropped = layer(torch.ones(10_000))
    assert dropped[dropped > 0].numpy() == pytest.approx(4 / 3)
    # The standard error of the share is 0.43 %.
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert torch.equal(layer(torch.ones(5)), torch.ones(5))


def test_shifts_are_measured_against_the_prediction_without_dropout() -> None:
    inputs = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    net = build("mlp", (6,), ("a", "b", "c"), generator=torch.Generator().manual_seed(0), width=16)
    victim = Victim(net=net, key="", cache=None)
    losses, moved = shifts(victim, inputs, 0.5, 2, seed=0)
    whole = torch.softmax(torch.from_numpy(victim.predict(inputs)), dim=1).numpy()
    predicted = whole.argmax(axis=1)
    expected, n_moved = np.zeros(300), 0
    for start in (0, 250):
        rows = np.arange(start, min(start + 250, 300))
        for number in range(2):
            with dropout(victim.net.stages, 0.5, draws(0, start, number)):
                dropped = torch.softmax(torch.from_numpy(victim.predict(inputs[rows])), dim=1).numpy()
            expected[rows] += (whole[rows, predicted[rows]] - dropped[np.arange(len(rows)), predicted[rows]]) / 2
            n_moved += int((dropped.argmax(axis=1) != predicted[rows]).sum())
    assert losses == pytest.approx(expected, abs=1e-5)
    assert moved == n_moved / 600


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [
        ({0.1: (0.2, 0.1), 0.5: (0.85, 0.8), 0.9: (0.95, 0.7)}, 0.9),
        ({0.1: (0.9, 0.2), 0.5: (0.85, 0.8), 0.9: (0.95, 0.7)}, 0.1),
        ({0.1: (0.3, 0.2), 0.5: (0.5, 0.2), 0.9: (0.7, 0.6)}, 0.5),  # none shifts enough
    ],
)
def test_the_rate_shifts_clean_samples_and_others_less(
    measured: dict[float, tuple[float, float]], chosen: float
) -> None:
    assert PSBD().choose(measured) == chosen


def test_badnets_ranks_high_and_all_to_all_low(hill_scenes: dict[str, "Scene"]) -> None:
    ranks: dict[str, list[float]] = {"badnets": [], "all-to-all": []}
    for name, some in ranks.items():
        one = hill_scenes[name]
        method = PSBD(**one.victim, rates=(0.2, 0.4, 0.6))
        for seed in range(3):
            verdict = method.inspect(one.samples, one.clean, seed=seed, workdir=one.workdir, on_progress=silent)
            some.append(verdict.compare(one.poison).auroc)
            assert "the dropout rate is 0." in verdict.notes[-1]
            assert verdict.flagged.sum() == sum(entry.n_flagged for entry in verdict.classes)
    # 0.79 on average, with a deviation of 0.05 from one classifier to the next, and 0.31 ± 0.02.
    assert np.mean(ranks["badnets"]) > 0.7
    assert np.mean(ranks["all-to-all"]) < 0.5


@pytest.mark.parametrize(
    "fields", [{"rates": ()}, {"rates": (1.0,)}, {"shifted": 1.0}, {"passes": 0}, {"quantile": 0.0}, {"substitute": 0}]
)
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        PSBD(**fields)
