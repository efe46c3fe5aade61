from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste import guards
from foretaste.classifiers.classifier import Answers, Classifier
from foretaste.errors import UsageError
from foretaste.guards.combined import Combined, Tail
from foretaste.guards.guard import GuardMethod, Screening
from foretaste.progress import OnProgress, silent
from foretaste.samples import Images, Samples


class Pixels:
    """Takes the first pixel for the label."""

    classes, sample_shape = None, None

    def classify(self, images: Images) -> Answers:
        return Answers(images[:, 0, 0, 0] % 2 + np.int64(0))


@dataclass(frozen=True, kw_only=True)
class ByPixel:
    """Finds a value suspicious the higher it is, and learns from what it has seen."""

    name: ClassVar[str] = "by-pixel"
    summary: ClassVar[str] = "one value of an image"
    needs_scores: ClassVar[bool] = False
    place: ClassVar[int] = 1

    def calibrate(
        self,
        classifier: Classifier,
        clean: Samples,
        *,
        false_alarm_rate: float,
        seed: int,
        on_progress: OnProgress = silent,
    ) -> "PixelScreener":
        return PixelScreener(classifier, self.place, clean)


class Corrects(ByPixel):
    place: ClassVar[int] = 2


@dataclass
class PixelScreener:
    classifier: Classifier
    place: int
    clean: Samples
    screened: int = 0

    def screen(self, images: Images, on_progress: OnProgress = silent) -> Screening:
        self.screened += len(images)
        labels = self.classifier.classify(images).labels
        scores = images[:, 0, self.place, 0].astype(np.float32)
        corrects = (self.place == 2) & (scores > 200)
        return Screening(
            labels=labels,
            corrected=np.where(corrects, 7, labels),
            trojaned=scores > 100,
            scores=scores,
            trigger_ids=np.where(corrects, "square", ""),
            queries=np.full(len(images), 3, dtype=np.int64),
        )


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = {**guards.built_in(), "by-pixel": ByPixel, "corrects": Corrects}
    monkeypatch.setattr(guards, "built_in", lambda: built_in)


def noisy(n: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    images = np.clip(rng.exponential(12, (n, 1, 3, 1)), 0, 255).astype(np.uint8)
    images[:, 0, 0] = np.arange(n)[:, None] % 2
    return Samples.from_arrays(images, np.arange(n) % 2)


def test_it_is_a_guard_that_needs_labels_only() -> None:
    assert isinstance(Combined(), GuardMethod)
    assert not Combined.needs_scores


def test_what_surprises_one_guard_is_found_and_whoever_knows_better_corrects() -> None:
    combined = Combined(methods=("by-pixel", "corrects"))
    screener = combined.calibrate(Pixels(), noisy(400, 0), false_alarm_rate=0.02, seed=0)
    images = noisy(4, 1).inputs
    images[:, 0, 1:, 0] = [[5, 5], [250, 5], [5, 250], [250, 250]]
    screening = screener.screen(images)
    assert screening.trojaned.tolist() == [False, True, True, True]
    assert screening.labels.tolist() == [0, 1, 0, 1]
    assert screening.corrected.tolist() == [0, 1, 7, 7]
    assert screening.trigger_ids.tolist() == ["", "", "square", "square"]
    assert screening.queries.tolist() == [6] * 4
    assert screening.scores.dtype == np.float32
    assert len(screener.screen(images[:0])) == 0


def test_one_false_alarm_rate_holds_for_all_together() -> None:
    """Over clean sets the mean of the rate is 4 / 101, for any number of guards, whether they agree or not."""
    shares = []
    for seed in range(60):
        clean = noisy(200, seed)
        screener = Combined(methods=("by-pixel", "corrects")).calibrate(
            Pixels(), clean, false_alarm_rate=0.04, seed=seed
        )
        shares.append(screener.screen(noisy(500, 1000 + seed).inputs).trojaned.mean())
    # Whole grey levels tie, which can only make alarms rarer.
    assert np.mean(shares) < 4 / 101 + 4 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) > 0.02


def test_guards_start_afresh_after_calibration() -> None:
    screener = Combined(methods=("by-pixel",)).calibrate(Pixels(), noisy(60, 0), false_alarm_rate=0.1, seed=0)
    [member] = screener.screeners
    assert isinstance(member, PixelScreener)
    assert (member.screened, len(member.clean)) == (0, 30)


def test_real_guards_together(corners: Classifier, clean: Samples, fresh: Images, trojaned: Images) -> None:
    screener = Combined(methods=("strip", "scale-up")).calibrate(corners, clean, false_alarm_rate=0.05, seed=0)
    assert screener.screen(trojaned).trojaned.mean() > 0.9
    # 80 images set the threshold: 4 of 81 may lie above it; of 60 fresh ones, 11 or more would in 1 of 1000 sets.
    assert screener.screen(fresh).trojaned.sum() < 11


def test_without_scores_the_guards_that_need_them_are_left_out(silent_corners: Classifier, clean: Samples) -> None:
    screener = Combined(methods=("strip", "scale-up")).calibrate(silent_corners, clean, false_alarm_rate=0.05, seed=0)
    assert len(screener.screeners) == 1
    with pytest.raises(UsageError, match="strip needs the classifier's scores"):
        Combined(methods=("strip",)).calibrate(silent_corners, clean, false_alarm_rate=0.05, seed=0)


def test_bad_usage() -> None:
    with pytest.raises(UsageError, match="has 39 images; all needs 40 or more"):
        Combined().calibrate(Pixels(), noisy(39, 0), false_alarm_rate=0.05, seed=0)
    with pytest.raises(UsageError, match="no guard 'nonesuch'"):
        Combined(methods=("nonesuch",)).calibrate(Pixels(), noisy(40, 0), false_alarm_rate=0.05, seed=0)
    methods: tuple[str, ...]
    for methods in ((), ("strip", "all")):
        with pytest.raises(UsageError, match="methods must name"):
            Combined(methods=methods)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_surprise_is_minus_the_logarithm_of_the_tail(scale: float) -> None:
    """Of exponential scores it is the score itself in units of the scale, far beyond the highest clean one too."""
    clean = scale * np.random.default_rng(0).exponential(size=2000)
    scores: NDArray[np.float64] = scale * np.array([0.1, 1, 3, 20])
    # The mean of 1000 excesses is known to 3 %, the share above 3 to 15 %.
    assert Tail.of(clean).surprise(scores) == pytest.approx(scores / scale, rel=0.1, abs=0.2)


def test_surprise_rises_with_the_score_and_bears_scores_that_are_all_the_same() -> None:
    surprise = Tail.of(np.array([1.0, 2.0, 2.0, 5.0])).surprise(np.array([0, 1, 2, 3, 5, 5.1, 9]))
    assert (np.diff(surprise) >= 0).all()
    assert surprise[0] == 0
    same = Tail.of(np.zeros(10)).surprise(np.array([0.0, 1.0]))
    assert same[0] == 0
    assert np.isfinite(same).all()
