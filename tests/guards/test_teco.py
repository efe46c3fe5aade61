import numpy as np
import pytest

from foretaste.classifiers.classifier import Answers, Classifier
from foretaste.guards.corruptions import CORRUPTIONS, corrupt
from foretaste.guards.guard import GuardMethod
from foretaste.guards.teco import TeCo
from foretaste.samples import Images, Samples


def test_it_is_a_guard_that_needs_labels_only() -> None:
    assert isinstance(TeCo(), GuardMethod)
    assert not TeCo.needs_scores


def test_a_trigger_that_only_some_corruptions_destroy_is_found(
    silent_corners: Classifier, clean: Samples, fresh: Images, trojaned: Images
) -> None:
    screener = TeCo().calibrate(silent_corners, clean, false_alarm_rate=0.05, seed=0)
    found = screener.screen(trojaned)
    assert found.trojaned.mean() > 0.9
    assert found.labels.tolist() == found.corrected.tolist() == [4] * len(trojaned)
    # 160 images set the threshold: 8 of 161 may lie above it; of 60 fresh ones, 10 or more would in 1 of 1000 sets.
    assert screener.screen(fresh).trojaned.sum() < 10


def test_the_score_is_the_spread_of_first_turning_severities(silent_corners: Classifier, clean: Samples) -> None:
    image = clean.inputs[:1]
    [label] = silent_corners.classify(image).labels
    first = []
    for name in CORRUPTIONS:
        asked = np.concatenate([corrupt(image, name, severity, seed=7) for severity in range(1, 6)])
        turned = np.flatnonzero(silent_corners.classify(asked).labels != label)
        first.append(turned[0] + 1 if turned.size else 6)
    screening = TeCo().calibrate(silent_corners, clean[:20], false_alarm_rate=0.05, seed=7).screen(image)
    assert screening.scores == pytest.approx(np.std(first))
    assert screening.queries.tolist() == [1 + sum(min(severity, 5) for severity in first)]


@pytest.mark.parametrize(("turns", "queries"), [(False, 76), (True, 16)])
def test_an_answer_that_always_or_never_turns_is_not_suspicious(turns: bool, queries: int, clean: Samples) -> None:
    class Fixed:
        classes, sample_shape = None, None

        def classify(self, images: Images) -> Answers:
            known = {image.tobytes() for image in clean.inputs}
            return Answers(np.array([turns and image.tobytes() not in known for image in images], dtype=np.int64))

    screening = TeCo().calibrate(Fixed(), clean[:20], false_alarm_rate=0.05, seed=0).screen(clean.inputs[:3])
    assert screening.scores.tolist() == [0, 0, 0]
    assert screening.queries.tolist() == [queries] * 3
