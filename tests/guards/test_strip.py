import numpy as np
import pytest

from foretaste.classifiers.classifier import Answers, Classifier
from foretaste.errors import UsageError
from foretaste.guards.guard import GuardMethod
from foretaste.guards.strip import STRIP, are_probabilities, entropy
from foretaste.samples import Images, Samples


def test_it_is_a_guard() -> None:
    assert isinstance(STRIP(), GuardMethod)
    assert STRIP.needs_scores


def test_a_trigger_that_decides_every_mixture_is_found(
    corners: Classifier, clean: Samples, fresh: Images, trojaned: Images
) -> None:
    screener = STRIP().calibrate(corners, clean, false_alarm_rate=0.05, seed=0)
    found = screener.screen(trojaned)
    assert found.trojaned.all()
    assert found.labels.tolist() == found.corrected.tolist() == [4] * len(trojaned)
    assert found.scores == pytest.approx(0, abs=1e-6)
    # 120 images set the threshold: 6 of 121 may lie above it; of 60 fresh ones, 10 or more would in 1 of 1000 sets.
    assert screener.screen(fresh).trojaned.sum() < 10
    assert screener.threshold.guaranteed


def test_what_an_input_costs(corners: Classifier, clean: Samples, fresh: Images) -> None:
    for overlays, queries in ((5, 6), (100, 41)):
        screener = STRIP(overlays=overlays).calibrate(corners, clean, false_alarm_rate=0.05, seed=0)
        assert set(screener.screen(fresh).queries.tolist()) == {queries}


def test_an_input_is_judged_by_itself_and_by_the_seed(corners: Classifier, clean: Samples, fresh: Images) -> None:
    first, again, other = (STRIP().calibrate(corners, clean, false_alarm_rate=0.05, seed=seed) for seed in (3, 3, 4))
    scores = first.screen(fresh).scores
    assert np.array_equal(scores, again.screen(fresh).scores)
    assert np.allclose(scores[20:21], first.screen(fresh[20:21]).scores)
    assert not np.array_equal(scores, other.screen(fresh).scores)
    assert len(first.screen(fresh[:0])) == 0


def test_overlays_are_added_and_clipped(corners: Classifier, clean: Samples) -> None:
    class Recording:
        classes, sample_shape = None, None
        seen: tuple[Images, ...] = ()

        def classify(self, images: Images) -> Answers:
            self.seen = (*self.seen, images)
            return corners.classify(images)

    recording = Recording()
    screener = STRIP(overlays=1).calibrate(recording, clean, false_alarm_rate=0.05, seed=0)
    image = np.full((1, 28, 28, 1), 200, dtype=np.uint8)
    screener.screen(image)
    own, mixed = recording.seen[-1]
    assert np.array_equal(own, image[0])
    expected = [np.minimum(overlay.astype(int) + 200, 255) for overlay in clean.inputs]
    assert any(np.array_equal(mixed, one) for one in expected)


def test_probabilities_and_logits_have_one_entropy() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 7), scale=5).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert are_probabilities(probabilities)
    assert not are_probabilities(logits)
    assert not are_probabilities(np.abs(logits))
    assert entropy(logits, probabilities=False) == pytest.approx(entropy(probabilities, probabilities=True), abs=1e-5)
    assert entropy(np.full((1, 8), 1 / 8, np.float32), probabilities=True) == pytest.approx(np.log(8))
    assert entropy(np.array([[1, 0, 0]], np.float32), probabilities=True) == 0


def test_labels_alone_are_not_enough(silent_corners: Classifier, clean: Samples) -> None:
    with pytest.raises(UsageError, match="strip needs the classifier's scores"):
        STRIP().calibrate(silent_corners, clean, false_alarm_rate=0.05, seed=0)


def test_a_field_out_of_range_is_bad_usage() -> None:
    with pytest.raises(UsageError, match="overlays must be 1 or more, not 0"):
        STRIP(overlays=0)
