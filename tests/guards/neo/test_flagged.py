"""What is asked of ``learn`` where triggers of flagged samples are reconstructed."""

from typing import Any

import numpy as np
import pytest

import foretaste
from foretaste.classifiers.classifier import Classifier
from foretaste.errors import UsageError
from foretaste.guards.neo.flagged import MOST_STAND_INS, stand_ins
from foretaste.guards.neo.registry import Registry
from foretaste.guards.trigger import Trigger
from foretaste.samples import Samples

TRIGGER = Trigger(
    patch=np.zeros((2, 2, 1), dtype=np.uint8),
    mask=np.ones((2, 2), dtype=np.bool_),
    position=(0, 0),
    anywhere=False,
    target=1,
    flip_rate=1.0,
    n_confirmed=20,
)


class Constant:
    """Never asked."""

    classes = sample_shape = None

    def classify(self, images: Any) -> Any:
        raise AssertionError


MODEL: Classifier = Constant()


@pytest.fixture
def samples() -> Samples:
    return Samples.from_arrays(np.zeros((700, 4, 4, 1), np.uint8), np.arange(700) % 2)


def test_the_flagged_samples_and_the_clean_set_are_what_it_looks_at(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def learn(quarantine: Samples, classifier: Classifier, clean: Samples, **options: Any) -> Registry:
        calls.append((quarantine.ids.tolist(), len(clean), options["seed"]))
        return Registry([TRIGGER])

    monkeypatch.setattr("foretaste.guards.neo.flagged.learn", learn)
    flagged = np.isin(np.arange(700), [3, 9])
    found = foretaste.reconstruct_triggers(samples, flagged, MODEL, samples[:50], seed=4)
    assert list(found) == [TRIGGER]
    foretaste.reconstruct_triggers(samples, flagged, MODEL)
    assert calls == [(["003", "009"], 50, 4), (["003", "009"], MOST_STAND_INS, 0)]


def test_samples_that_passed_stand_in_for_a_clean_set(samples: Samples) -> None:
    flagged = np.arange(700) < 100
    chosen = stand_ins(samples, flagged, 1)
    assert len(chosen) == MOST_STAND_INS
    assert set(chosen.ids.tolist()) <= set(samples.ids[~flagged].tolist())
    assert (stand_ins(samples, flagged, 1).ids == chosen.ids).all()
    assert len(stand_ins(samples, np.arange(700) < 650, 1)) == 50


def test_nothing_flagged_has_no_triggers_and_features_are_refused(samples: Samples) -> None:
    none = np.zeros(700, dtype=np.bool_)
    assert len(foretaste.reconstruct_triggers(samples, none, MODEL)) == 0
    features = Samples.from_arrays(np.zeros((4, 2)), np.arange(4) % 2)
    with pytest.raises(UsageError, match="these samples are feature vectors"):
        foretaste.reconstruct_triggers(features, np.ones(4, dtype=np.bool_), MODEL)
