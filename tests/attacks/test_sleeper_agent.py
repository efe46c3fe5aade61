from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.attacks._base.fitting import with_weights
from foretaste.attacks.sleeper_agent import SleeperAgent
from foretaste.attacks.sleeper_agent.matching import apart, craft, gradient
from foretaste.errors import UsageError
from foretaste.nets import build
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Samples


def pictures(n: int = 120) -> Samples:
    labels = np.arange(n) % 3
    noise = np.random.default_rng(0).integers(0, 90, (n, 16, 16, 3))
    return Samples.from_arrays((noise + 60 * labels[:, None, None, None]).astype(np.uint8), labels)


def crafted(workdir: Path | None = None, on_progress: OnProgress = silent, **fields: Any) -> dict[str, Any]:
    attack = SleeperAgent(epochs=1, **fields)
    weights = craft(
        pictures(),
        attack.with_patch,
        target=0,
        source=1,
        count=6,
        epsilon=attack.epsilon,
        steps=attack.steps,
        retrains=attack.retrains,
        epochs=1,
        seed=0,
        workdir=workdir,
        on_progress=on_progress,
    )
    return dict(weights)


def test_the_changes_keep_their_bound_and_come_to_pull_as_the_patch_does() -> None:
    seen: list[Progress] = []
    # The pictures are so noisy that small changes hardly show in the gradient.
    weights = crafted(steps=30, retrains=0, epsilon=96, on_progress=seen.append)
    assert 16 < np.abs(weights["changes"]).max() <= 96
    assert (pictures().labels[weights["rows"]] == 0).all()
    cosines = [float(report.note.split()[1]) for report in seen if report.phase == "match gradients"]
    assert np.mean(cosines[-5:]) > np.mean(cosines[:5]) + 0.05


def test_the_classifier_is_trained_anew_on_the_way() -> None:
    seen: list[Progress] = []
    crafted(steps=4, retrains=2, on_progress=seen.append)
    phases = list(dict.fromkeys(report.phase for report in seen))
    assert phases == ["train classifier 1 of 3", "match gradients", *(f"train classifier {k} of 3" for k in (2, 3))]


def test_the_patch_shows_only_at_test_time_and_moves() -> None:
    grey = np.full((30, 32, 32, 3), 128, np.uint8)
    stamped = SleeperAgent().stamp(grey, np.random.default_rng(0))
    changed = (stamped != 128).all(axis=3)
    assert (changed.sum(axis=(1, 2)) == 64).all()
    assert len({tuple(np.argwhere(image)[0]) for image in changed}) > 10


def test_the_poison_belongs_to_the_samples_it_was_made_for() -> None:
    weights = crafted(steps=2, retrains=0)
    attack = with_weights(SleeperAgent(rate=0.05), weights)
    assert attack.poison(pictures(), np.random.default_rng(0)).poison.sum() == 6
    clean = pictures()
    relabelled = Samples.from_arrays(clean.inputs, np.roll(clean.labels, 1))
    darker = Samples.from_arrays(clean.inputs // 2, clean.labels)
    for other in (pictures(150), clean[:60], relabelled, darker):
        with pytest.raises(UsageError, match="other samples"):
            attack.poison(other, np.random.default_rng(0))


def test_gradient_matching_that_was_killed_goes_on(tmp_path: Path) -> None:
    def kill(progress: Progress) -> None:
        if progress.phase == "match gradients" and progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crafted(steps=6, retrains=2, workdir=tmp_path, on_progress=kill)
    seen: list[Progress] = []
    again = crafted(steps=6, retrains=2, workdir=tmp_path, on_progress=seen.append)
    assert next(report.done for report in seen if report.phase == "match gradients") == 5
    whole = crafted(steps=6, retrains=2)
    assert again.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values)


def test_a_source_class_that_is_absent_or_the_target_is_refused() -> None:
    clean = pictures()
    with pytest.raises(UsageError, match="source class 1"):
        SleeperAgent(rate=0.05).check(clean[clean.labels != 1])
    with pytest.raises(UsageError, match="3 classes"):
        SleeperAgent(source=3).check(clean)
    with pytest.raises(UsageError, match="same class"):
        SleeperAgent(source=2, target=2)


def test_gradients_are_apart_by_their_angle() -> None:
    one = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    assert float(apart(one, [2 * part for part in one])) == pytest.approx(0, abs=1e-6)
    assert float(apart(one, [-part for part in one])) == pytest.approx(2)
    net = build(None, (16, 16, 3), ["a", "b"], generator=torch.Generator().manual_seed(0)).eval()
    images = torch.rand((4, 16, 16, 3)) * 255
    first, again = (gradient(net, images, 1, second_order=False) for _ in range(2))
    assert float(apart(first, again)) == pytest.approx(0, abs=1e-5)
    assert float(apart(first, gradient(net, images, 0, second_order=False))) > 0.1
