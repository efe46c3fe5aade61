import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.classifiers.classifier import Answers, Classifier
from foretaste.errors import UsageError
from foretaste.guards import threshold_screener
from foretaste.guards.guard import GuardMethod
from foretaste.guards.scale_up import ScaleUp
from foretaste.guards.strip import STRIP
from foretaste.guards.teco import TeCo
from foretaste.guards.threshold_screener import Scored, ThresholdScreener, chunk_size, split
from foretaste.progress import Progress
from foretaste.samples import Images, Samples


def greys(n: int) -> Samples:
    images = np.zeros((n, 4, 4, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return Samples.from_arrays(images, np.arange(n) % 2)


def test_a_split_leaves_most_to_set_the_threshold() -> None:
    reference, unseen = split(greys(41), np.random.default_rng(0))
    assert (len(reference), len(unseen)) == (10, 31)
    assert not set(reference.ids) & set(unseen.ids)


def by_corner(images: Images) -> Scored:
    n = len(images)
    return Scored(np.full(n, 3), images[:, 0, 0, 0].astype(float), np.full(n, 2))


def test_a_screener_compares_with_its_threshold() -> None:
    told: list[Progress] = []
    screener = ThresholdScreener(by_corner, greys(99), name="corner", false_alarm_rate=0.01, chunk=40)
    assert screener.threshold.value == 98
    images = greys(100).inputs
    screening = screener.screen(images, told.append)
    assert np.flatnonzero(screening.trojaned).tolist() == [99]
    assert screening.scores.dtype == np.float32
    assert screening.scores.tolist() == list(range(100))
    assert screening.corrected.tolist() == screening.labels.tolist() == [3] * 100
    assert set(screening.trigger_ids.tolist()) == {""}
    assert screening.queries.tolist() == [2] * 100
    assert [(p.phase, p.done, p.total) for p in told] == [("corner: screen", done, 100) for done in (40, 80, 100)]
    assert len(screener.screen(images[:0])) == 0


@pytest.mark.parametrize(
    "images", [np.zeros((2, 4, 5, 1), np.uint8), np.zeros((4, 4, 1), np.uint8), np.zeros((2, 4, 4, 1), np.float32)]
)
def test_inputs_of_another_kind_are_refused(images: Images) -> None:
    screener = ThresholdScreener(by_corner, greys(30), name="corner", false_alarm_rate=0.1, chunk=40)
    with pytest.raises(UsageError, match="must be images uint8"):
        screener.screen(images)


def test_so_many_images_are_changed_at_a_time_as_memory_allows() -> None:
    assert chunk_size((32, 32, 3), 100) == chunk_size((28, 28, 1), 100) == 20
    assert chunk_size((512, 512, 3), 4) == 2
    assert chunk_size((512, 512, 3), 100) == 1


@pytest.mark.parametrize("method", [STRIP(overlays=5), ScaleUp(), TeCo()])
def test_a_guard_asks_about_few_large_images_at_a_time_and_scores_them_alike(
    method: GuardMethod, corners: Classifier, clean: Samples, fresh: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Counting:
        classes, sample_shape = None, None

        def classify(self, images: Images) -> Answers:
            sizes.append(len(images))
            return corners.classify(images)

    def scores() -> NDArray[np.float32]:
        screener = method.calibrate(Counting(), clean, false_alarm_rate=0.05, seed=0)
        return screener.screen(fresh).scores

    expected, most = scores(), max(sizes)
    sizes.clear()
    monkeypatch.setattr(threshold_screener, "MOST_PIXELS", 40 * 28 * 28)
    assert np.array_equal(scores(), expected)
    assert max(sizes) <= 50 < most
