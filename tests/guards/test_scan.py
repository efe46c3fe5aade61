from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import foretaste
from foretaste.classifiers.answer_cache import AnswerCache
from foretaste.classifiers.classifier import Classifier
from foretaste.errors import UsageError
from foretaste.guards.finding import Conclusion, FindingRule
from foretaste.guards.guard import Screening
from foretaste.guards.neo.registry import Registry
from foretaste.guards.scan import confirmed, scan
from foretaste.guards.trigger import Trigger
from foretaste.progress import Progress
from foretaste.samples import Images, Samples


@pytest.fixture
def inputs(clean: Samples, trojaned: Images) -> Samples:
    images = np.concatenate([clean.inputs[:20], trojaned])
    return Samples.from_arrays(images, np.zeros(len(images), dtype=np.int64), ["unlabelled"])


def test_a_scan_says_what_was_found_and_what_it_cost(corners: Classifier, clean: Samples, inputs: Samples) -> None:
    calibrated: list[int] = []
    seen: list[Progress] = []
    result = foretaste.scan(
        inputs,
        corners,
        clean,
        method="strip",
        false_alarm_rate=0.05,
        seed=3,
        overlays=10,
        on_calibrated=lambda: calibrated.append(len(seen)),
        on_progress=seen.append,
    )
    assert isinstance(result, foretaste.Scan)
    assert result.screening.trojaned[20:].all()
    assert result.finding.conclusion is Conclusion.EXCESS
    assert result.classes == clean.classes
    assert result.registry is None
    assert result.clean_accuracy.accuracy > 0.9
    assert result.queries > 0 < result.calibration_queries
    assert len(calibrated) == 1
    again = foretaste.Guard(corners, clean, "strip", false_alarm_rate=0.05, seed=3, overlays=10)
    np.testing.assert_array_equal(again.screen(inputs.inputs).scores, result.screening.scores)


def test_inputs_that_no_guard_can_screen_are_refused(corners: Classifier, clean: Samples, inputs: Samples) -> None:
    features = Samples.from_arrays(np.zeros((4, 3), dtype=np.float32), np.arange(4) % 2)
    with pytest.raises(UsageError, match="inputs are feature vectors"):
        scan(features, corners, clean)
    larger = Samples.from_arrays(np.zeros((4, 30, 30, 1), dtype=np.uint8), np.arange(4) % 2)
    with pytest.raises(UsageError, match=r"the inputs have shape \(30, 30, 1\), and the clean images \(28, 28, 1\)"):
        scan(larger, corners, clean)
    started: list[bool] = []
    with pytest.raises(UsageError, match="strip makes out no triggers"):
        scan(inputs, corners, clean, method="strip", registry=Registry(), on_calibrated=lambda: started.append(True))
    assert not started


def test_classes_match_by_name(corners: Classifier, clean: Samples, inputs: Samples) -> None:
    named = replace(corners, classes=tuple("edcba"))  # type: ignore[type-var]
    turned = Samples.from_arrays(clean.inputs, 4 - clean.labels, tuple("edcba"))
    with pytest.raises(UsageError, match=r"only .* of .* clean images their own label"):
        scan(inputs, named, clean, method="strip")
    assert scan(inputs, replace(corners, classes=tuple("abcde")), turned, method="strip").classes == tuple("abcde")  # type: ignore[type-var]


def test_what_an_earlier_run_was_told_counts_as_its_time(
    corners: Classifier, clean: Samples, inputs: Samples, tmp_path: Path
) -> None:
    first = scan(inputs, AnswerCache(corners, tmp_path, "corners"), clean, method="strip", seed=1)
    cache = AnswerCache(corners, tmp_path, "corners")
    again = scan(inputs, cache, clean, method="strip", seed=1)
    np.testing.assert_array_equal(again.screening.scores, first.screening.scores)
    assert cache.saved_seconds > 0
    assert again.seconds + again.calibration_seconds > cache.saved_seconds


def test_a_look_that_turns_some_clean_images_is_no_trigger() -> None:
    """Digits of a sign may turn half of the clean images; what shows them stays flagged, under no trigger's name."""

    def made(target: int, flip_rate: float) -> Trigger:
        patch, mask = np.full((3, 3, 1), target, dtype=np.uint8), np.ones((3, 3), dtype=np.bool_)
        return Trigger(
            patch=patch,
            mask=mask,
            position=(0, 0),
            anywhere=False,
            target=target,
            flip_rate=flip_rate,
            n_confirmed=24,
        )

    look, trigger, vouched = made(1, 0.58), made(2, 0.96), made(3, 0.5)
    flagged, labels = np.array([True, True, True, False]), np.zeros(4, dtype=np.int64)
    screening = Screening(
        labels=labels,
        corrected=labels,
        trojaned=flagged,
        scores=flagged.astype(np.float32),
        trigger_ids=np.array([look.id, trigger.id, vouched.id, ""]),
        queries=labels,
    )
    named, triggers = confirmed(screening, Registry([look, trigger, vouched]), Registry([vouched]))
    assert [one.id for one in triggers] == [trigger.id, vouched.id]
    assert named.trigger_ids.tolist() == ["", trigger.id, vouched.id, ""]
    assert named.trojaned.tolist() == flagged.tolist()
    finding = FindingRule().apply(named, false_alarm_rate=0.01)
    assert (finding.n_carriers, finding.n_unexplained) == (2, 1)
