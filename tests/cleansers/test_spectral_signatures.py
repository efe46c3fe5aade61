from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from foretaste.cleansers.spectral_signatures import SpectralSignatures, along_first_axis
from foretaste.errors import UsageError
from foretaste.progress import silent
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.cleansers.conftest import DrawGroups, Scene


def test_scores_are_distances_along_the_first_singular_vector() -> None:
    features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32) * [9, 3, 1, 1, 1, 1]
    centred = features - features.mean(axis=0)
    _, _, right = np.linalg.svd(centred)
    along = np.abs(along_first_axis(features.astype(np.float32)))
    assert along == pytest.approx(np.abs(centred @ right[0]), rel=1e-4, abs=1e-4)


def test_poison_that_stands_out_is_flagged(draw_groups: "DrawGroups") -> None:
    groups = draw_groups(n_poison=10, away=25.0)
    verdict = SpectralSignatures().judge(groups.samples, groups.features, seed=0, start=0.0)
    assert verdict.flagged[groups.poison].all()
    assert verdict.flagged[~groups.poison].mean() <= 0.01
    assert "no poison rate was given" in verdict.notes[0]
    assert verdict.classes[0].condemned
    assert verdict.classes[0].statistic > 4


def test_with_a_rate_as_many_go_from_every_class_as_the_paper_says(draw_groups: "DrawGroups") -> None:
    groups = draw_groups(n_poison=10, away=25.0)
    rate = groups.poison.mean()
    verdict = SpectralSignatures(expected_rate=float(rate)).judge(groups.samples, groups.features, seed=0, start=0.0)
    counts = np.bincount(groups.samples.labels[verdict.flagged])
    assert counts.tolist() == [15] * 8
    assert verdict.flagged[groups.poison].all()
    assert all(entry.condemned and entry.n_flagged == entry.n_suspects == 15 for entry in verdict.classes)
    half = SpectralSignatures(expected_rate=0.5).judge(groups.samples, groups.features, seed=0, start=0.0)
    assert np.bincount(groups.samples.labels[half.flagged]).tolist() == [55] + [50] * 7


def test_almost_nothing_stands_out_of_normal_features(draw_groups: "DrawGroups") -> None:
    groups = draw_groups(n_poison=0, n=500, n_classes=4)
    verdict = SpectralSignatures().judge(groups.samples, groups.features, seed=0, start=0.0)
    # 0.13 are expected, and a Poisson variable of that mean is above 2 once in 2,500 times.
    assert verdict.flagged.sum() <= 2


def test_feature_vectors_are_judged_too() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    rows = Samples.from_arrays((rng.normal(size=(200, 5)) + 3 * labels[:, None]).astype(np.float32), labels)
    method = SpectralSignatures(width=8, epochs=2)
    verdict = method.inspect(rows, None, seed=0, workdir=None, on_progress=silent)
    again = method.inspect(rows, None, seed=0, workdir=None, on_progress=silent)
    assert np.array_equal(verdict.scores, again.scores)
    assert (verdict.method, len(verdict.classes)) == ("spectral-signatures", 2)


def test_poison_behind_natural_variation_is_missed(draw_groups: "DrawGroups") -> None:
    """The first axis is the one that varies most, whatever varies; SPECTRE was made for this."""
    groups = draw_groups(n_poison=10, away=8.0)
    features = groups.features.copy()
    features[:, 0] += 20 * np.random.default_rng(1).normal(size=len(features)).astype(np.float32)
    verdict = SpectralSignatures().judge(groups.samples, features, seed=0, start=0.0)
    assert verdict.compare(groups.poison).tpr == 0


def test_badnets_ranks_high(badnets_scene: "Scene") -> None:
    one = badnets_scene
    method = SpectralSignatures(**one.victim, expected_rate=float(one.poison.mean()))
    own, ranks = one.samples.labels == 0, []
    for seed in range(3):
        verdict = method.inspect(one.samples, None, seed=seed, workdir=one.workdir, on_progress=silent)
        ranks.append(roc_auc_score(one.poison[own], verdict.scores[own]))
    # 0.89 on average, with a deviation of 0.08 from one classifier to the next.
    assert np.median(ranks) > 0.8


@pytest.mark.parametrize("fields", [{"expected_rate": 0.0}, {"expected_rate": 1.0}, {"multiple": 0.5}, {"cutoff": 0.0}])
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        SpectralSignatures(**fields)


def test_it_agrees_with_art(art_poison: Any) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(100, 6)) * [4, 1, 1, 1, 1, 1]
    features[:10, 0] += 40
    # ART projects features, and not their differences from the mean as the paper has it: make the mean 0.
    features = (features - features.mean(axis=0)).astype(np.float32)
    theirs = art_poison.SpectralSignatureDefense.spectral_signature_scores(features)[:, 0]
    assert np.abs(along_first_axis(features)) == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    samples = Samples.from_arrays(np.zeros((100, 16, 16, 3), dtype=np.uint8), np.zeros(100, dtype=np.int64))
    verdict = SpectralSignatures(expected_rate=0.1).judge(samples, features, seed=0, start=0.0)
    # ART keeps what is below the quantile, which is the 15th highest score here.
    assert np.array_equal(verdict.flagged, theirs >= np.quantile(theirs, 1 - 1.5 * 0.1))
