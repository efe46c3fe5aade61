from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from foretaste.cleansers.scan import SCAn, decompose, likelihood_ratio, untangle
from foretaste.cleansers.verdict import Detection
from foretaste.errors import UsageError
from foretaste.progress import silent

if TYPE_CHECKING:
    from tests.cleansers.conftest import DrawGroups, Scene


def test_the_variation_is_told_from_the_identities() -> None:
    rng = np.random.default_rng(0)
    variation = np.diag([4.0, 1.0, 0.25])
    labels = np.arange(6000) % 60
    features = 5 * rng.normal(size=(60, 3))[labels] + rng.normal(size=(6000, 3)) * np.sqrt(np.diag(variation))
    estimate = decompose(features, labels, 50)
    # A variance from 6,000 samples has a standard error of 1.8 %.
    assert np.diag(estimate) == pytest.approx(np.diag(variation), rel=0.08)
    assert np.abs(estimate - np.diag(np.diag(estimate))).max() < 0.15


def test_the_likelihood_ratio_is_that_of_the_two_models() -> None:
    rng = np.random.default_rng(0)
    features, second = rng.normal(size=(20, 3)), np.arange(20) < 6
    variation = np.diag([1.0, 2.0, 3.0])

    def log_likelihood(*groups: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        away = np.concatenate([group - group.mean(axis=0) for group in groups])
        return -0.5 * float((away @ np.linalg.inv(variation) * away).sum())

    gain = log_likelihood(features[second], features[~second]) - log_likelihood(features)
    assert likelihood_ratio(features, second, variation) == pytest.approx(2 * gain)
    assert likelihood_ratio(features, np.zeros(20, dtype=np.bool_), variation) == 0


def test_a_class_of_two_groups_is_untangled() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(100, 4)) * [10, 1, 1, 1]
    features[:20, 1] += 8
    second, along = untangle(features, np.diag([100.0, 1, 1, 1]), 50)
    assert second.tolist() == [True] * 20 + [False] * 80
    assert ((along > 0) == second).all()


def test_a_second_group_is_flagged(draw_groups: "DrawGroups") -> None:
    groups, clean = draw_groups(), draw_groups(n_poison=0)
    verdict = SCAn().judge(groups.samples, groups.features, clean.samples.labels, clean.features, seed=0, start=0.0)
    assert verdict.suspect_classes == (0,)
    assert verdict.flagged[groups.poison].all()
    assert not verdict.flagged[~groups.poison].any()


def test_no_class_of_a_clean_set_stands_out(draw_groups: "DrawGroups") -> None:
    clean = draw_groups(n_poison=0)
    verdict = SCAn().judge(clean.samples, clean.features, clean.samples.labels, clean.features, seed=0, start=0.0)
    assert not verdict.flagged.any()


def test_poison_in_every_class_hides(draw_groups: "DrawGroups") -> None:
    """The statistic is compared over the classes; what all of them have is the rule."""
    clean = draw_groups(n_poison=0)
    rng = np.random.default_rng(0)
    shift = rng.normal(size=12)
    features = clean.features.copy()
    for label in range(8):
        members = np.flatnonzero(clean.samples.labels == label)[:20]
        features[members] += (8 * shift / np.linalg.norm(shift)).astype(np.float32)
    verdict = SCAn().judge(clean.samples, features, clean.samples.labels, clean.features, seed=0, start=0.0)
    assert not verdict.flagged.any()


def test_it_finds_badnets_and_not_all_to_all(badnets_scene: "Scene", all_to_all_scene: "Scene") -> None:
    method = SCAn(**badnets_scene.victim)

    def detection(one: "Scene", seed: int) -> Detection:
        verdict = method.inspect(one.samples, one.clean, seed=seed, workdir=one.workdir, on_progress=silent)
        return verdict.compare(one.poison)

    # What one victim learns depends on the machine.
    found = [detection(badnets_scene, seed) for seed in range(3)]
    assert np.median([one.tpr for one in found]) > 0.9
    assert np.median([one.fpr for one in found]) < 0.02
    assert detection(all_to_all_scene, 0).tpr < 0.5


@pytest.mark.parametrize("fields", [{"anomaly": 0.0}, {"iterations": 0}, {"substitute": 0}])
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        SCAn(**fields)


def test_one_clean_sample_of_each_class_says_nothing_of_the_variation(draw_groups: "DrawGroups") -> None:
    groups = draw_groups(n=20)
    first = np.unique(groups.samples.labels, return_index=True)[1]
    with pytest.raises(UsageError, match="needs two of some class"):
        SCAn(epochs=1).inspect(groups.samples, groups.samples[first], seed=0, workdir=None, on_progress=silent)
