from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from foretaste.cleansers.activation_clustering import ActivationClustering, two_clusters
from foretaste.errors import UsageError
from foretaste.progress import silent

if TYPE_CHECKING:
    from tests.cleansers.conftest import DrawGroups, Scene


def test_the_smaller_of_two_clear_clusters_is_found() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(30, 3)), rng.normal(size=(10, 3)) + 9])
    small, nearer, silhouette = two_clusters(points, seed=0)
    assert small.tolist() == [False] * 30 + [True] * 10
    assert ((nearer > 0) == small).all()
    assert silhouette == pytest.approx(silhouette_score(points, small))


def test_one_point_apart_in_a_large_class_is_not_missed() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(4999, 3)), [[90, 90, 90]]])
    for seed in range(4):
        small, _, silhouette = two_clusters(points, seed)
        assert np.flatnonzero(small).tolist() == [4999]
        # Standard error of a mean of 1,000 silhouettes: below 0.001.
        assert silhouette == pytest.approx(silhouette_score(points, small), abs=0.01)


def test_points_that_are_all_the_same_are_no_two_clusters() -> None:
    small, _, silhouette = two_clusters(np.ones((5, 2)), seed=0)
    assert not small.any()
    assert silhouette == -1


@pytest.mark.parametrize("reduction", ["ica", "pca"])
def test_a_second_group_is_flagged(reduction: Any, draw_groups: "DrawGroups") -> None:
    groups = draw_groups(away=25.0)
    method = ActivationClustering(reduction=reduction, components=4)
    verdict = method.judge(groups.samples, groups.features, seed=0, start=0.0)
    assert verdict.flagged[groups.poison].all()
    assert 0 in verdict.suspect_classes
    assert not verdict.flagged[groups.samples.labels == 0][:100].any()
    assert "17% of the class" in verdict.classes[0].reason


def test_two_halves_are_no_poison(draw_groups: "DrawGroups") -> None:
    groups = draw_groups(n_poison=100, away=25.0)
    verdict = ActivationClustering(components=4).judge(groups.samples, groups.features, seed=0, start=0.0)
    assert 0 not in verdict.suspect_classes
    assert verdict.classes[0].n_suspects == 100


def test_features_of_few_dimensions_and_none_that_vary(draw_groups: "DrawGroups") -> None:
    groups = draw_groups()
    narrow = np.concatenate([groups.features[:, :2], np.ones_like(groups.features[:, :1])], axis=1)
    verdict = ActivationClustering().judge(groups.samples, narrow, seed=0, start=0.0)
    assert np.isfinite(verdict.scores).all()
    same = ActivationClustering().judge(groups.samples, np.ones_like(narrow), seed=0, start=0.0)
    assert not same.flagged.any()


def share_found(scene: "Scene", seed: int, **victim: Any) -> float:
    """Return the share of the poison that is found on the victim of this seed."""
    method = ActivationClustering(**scene.victim | victim)
    verdict = method.inspect(scene.samples, None, seed=seed, workdir=scene.workdir, on_progress=silent)
    return verdict.compare(scene.poison).tpr


def test_it_finds_badnets(more_badnets_scene: "Scene") -> None:
    # Which cluster is the smaller is a close call, and what one victim learns depends on the machine.
    assert np.median([share_found(more_badnets_scene, seed, width=16) for seed in range(5)]) > 0.8


def test_it_finds_little_of_all_to_all(all_to_all_scene: "Scene") -> None:
    assert share_found(all_to_all_scene, 0) < 0.6


def test_it_misses_a_part_of_untargeted_poison(untargeted_scene: "Scene") -> None:
    # Of six victims it found 32 % to 66 %.
    assert share_found(untargeted_scene, 0) < 0.8


@pytest.mark.parametrize(
    "fields", [{"reduction": "tsne"}, {"components": 0}, {"silhouette": 2.0}, {"largest_share": 0.6}]
)
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        ActivationClustering(**fields)


def test_it_agrees_with_art(draw_groups: "DrawGroups", art_poison: Any) -> None:
    groups = draw_groups(away=25.0)
    ours = ActivationClustering(reduction="pca", components=4)
    verdict = ours.judge(groups.samples, groups.features, seed=0, start=0.0)
    members = groups.samples.labels == 0
    np.random.seed(0)  # noqa: NPY002, ART draws from it
    cluster = art_poison.activation_defence.cluster_activations
    [theirs], _ = cluster([groups.features[members]], nb_clusters=2, nb_dims=4, reduce="PCA")
    smaller = theirs == np.bincount(theirs).argmin()
    assert np.array_equal(verdict.flagged[members], smaller)
