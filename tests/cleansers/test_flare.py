from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from foretaste.cleansers.flare import FLARE, comparable
from foretaste.errors import UsageError
from foretaste.progress import silent
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.cleansers.conftest import Scene


def unlikely(n_poison: int, seed: int = 0) -> tuple[Samples, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]:
    """Return samples of two classes, the last of which are unlikely in the first layers, and their likelihoods."""
    rng = np.random.default_rng(seed)
    likelihoods = -5 - rng.gamma(4, 1, size=(600 + n_poison, 6))
    likelihoods[600:, :3] -= 60 + rng.normal(size=(n_poison, 3))
    labels = np.concatenate([np.arange(600) % 2, np.zeros(n_poison, dtype=np.int64)])
    return Samples.from_arrays(rng.normal(size=(len(labels), 2)), labels), likelihoods.astype(np.float32)


def test_a_cluster_of_unlikely_samples_is_flagged() -> None:
    samples, likelihoods = unlikely(60)
    verdict = FLARE(neighbours=20).judge(samples, likelihoods, seed=0, start=0.0)
    assert verdict.flagged.tolist() == [False] * 600 + [True] * 60
    assert verdict.suspect_classes == (0,)
    assert verdict.scores[600:].min() > verdict.scores[:600].max()
    assert verdict.notes == ("the first 6 of 6 layers were used",)


def test_one_cluster_is_benign() -> None:
    samples, likelihoods = unlikely(0)
    verdict = FLARE(neighbours=20).judge(samples, likelihoods, seed=0, start=0.0)
    assert not verdict.flagged.any()
    assert verdict.notes == ("the first 2 of 6 layers were used",)


def test_fewer_poison_samples_than_a_cluster_needs_are_missed() -> None:
    samples, likelihoods = unlikely(10)
    verdict = FLARE(neighbours=20).judge(samples, likelihoods, seed=0, start=0.0)
    assert not verdict.flagged.any()


def test_fewer_samples_than_neighbours_are_refused() -> None:
    samples, likelihoods = unlikely(0)
    with pytest.raises(UsageError, match="lower neighbours"):
        FLARE(neighbours=20).judge(samples[:19], likelihoods[:19], seed=0, start=0.0)


def test_layers_are_put_on_one_scale() -> None:
    rng = np.random.default_rng(0)
    likelihoods = (-np.exp(rng.normal(size=(5000, 2))) * [1, 1000]).astype(np.float32)
    scaled = comparable(likelihoods)
    assert np.median(scaled, axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert np.median(np.abs(scaled), axis=0) == pytest.approx([0.6745, 0.6745], rel=1e-3)


def test_a_net_without_batch_normalisation_is_refused() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    samples = Samples.from_arrays(images, np.arange(20) % 2)
    with pytest.raises(UsageError, match="the net vit has none; take another net"):
        FLARE(net="vit", width=4, epochs=1).inspect(samples, None, seed=0, workdir=None, on_progress=silent)


def test_badnets_ranks_above_its_class(badnets_scene: "Scene") -> None:
    one = badnets_scene
    method = FLARE(**one.victim, neighbours=15)
    verdict = method.inspect(one.samples, None, seed=0, workdir=one.workdir, on_progress=silent)
    again = method.inspect(one.samples, None, seed=0, workdir=one.workdir, on_progress=silent)
    assert verdict.compare(one.poison).auroc > 0.9
    assert np.array_equal(verdict.scores, again.scores)


@pytest.mark.parametrize("fields", [{"components": 0}, {"neighbours": 1}, {"smallest": 0.5}, {"dropped": -1}])
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        FLARE(**fields)
