from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from foretaste.cleansers._base.victim import Victim
from foretaste.cleansers.strip import STRIP, mixed_entropies
from foretaste.errors import UsageError
from foretaste.nets import build
from foretaste.progress import silent
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.cleansers.conftest import Scene


def test_entropies_are_of_the_answers_to_the_sums() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    overlays = rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    net = build("convnet", (16, 16, 3), ("a", "b", "c"), generator=torch.Generator().manual_seed(0), width=4)
    victim = Victim(net=net, key="", cache=None)
    expected = []
    for image in images:
        sums = np.minimum(image.astype(int) + overlays, 255).astype(np.uint8)
        answers = torch.softmax(torch.from_numpy(victim.predict(sums)), dim=1).numpy()
        expected.append(entropy(answers, axis=1).mean())
    assert mixed_entropies(victim, images, overlays) == pytest.approx(expected, rel=1e-4)


def test_badnets_ranks_high(badnets_scene: "Scene") -> None:
    one = badnets_scene
    method = STRIP(**one.victim, overlays=8)
    ranks = []
    for seed in (2, 1, 0):
        verdict = method.inspect(one.samples, one.clean, seed=seed, workdir=one.workdir, on_progress=silent)
        detection = verdict.compare(one.poison)
        assert detection.fpr < 0.1
        assert verdict.notes == ()
        ranks.append(detection.auroc)
    # 0.81 on average, with a deviation of 0.15 from one classifier to the next: of three a mean below 0.6 is 2.4
    # standard errors away.
    assert np.mean(ranks) > 0.6
    again = method.inspect(one.samples, one.clean, seed=0, workdir=one.workdir, on_progress=silent)
    assert np.array_equal(verdict.scores, again.scores)


def test_samples_of_the_set_stand_in_for_a_clean_set(badnets_scene: "Scene") -> None:
    one = badnets_scene
    method = STRIP(**one.victim, overlays=4, substitute=40)
    verdict = method.inspect(one.samples, None, seed=0, workdir=one.workdir, on_progress=silent)
    assert "40 random samples of the inspected set stood in" in verdict.notes[0]


def test_feature_vectors_and_too_few_clean_samples_are_refused(badnets_scene: "Scene") -> None:
    rows = Samples.from_arrays(np.zeros((20, 3), dtype=np.float32), np.arange(20) % 2)
    with pytest.raises(UsageError, match="strip works on images, and these samples are feature vectors"):
        STRIP().inspect(rows, None, seed=0, workdir=None, on_progress=silent)
    one = badnets_scene
    with pytest.raises(UsageError, match="4 clean samples or more, not 3"):
        STRIP().inspect(one.samples, one.clean[:3], seed=0, workdir=None, on_progress=silent)


@pytest.mark.parametrize("fields", [{"overlays": 0}, {"false_alarm_rate": 0.5}, {"substitute": 3}])
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        STRIP(**fields)
