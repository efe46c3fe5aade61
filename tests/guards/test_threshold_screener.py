import numpy as np
import pytest

from foretaste.errors import UsageError
from foretaste.guards.threshold_screener import Scored, ThresholdScreener, split
from foretaste.progress import Progress
from foretaste.samples import Images, Samples


def clean(n: int) -> Samples:
    images = np.zeros((n, 4, 4, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return Samples.from_arrays(images, np.arange(n) % 2)


def test_a_split_leaves_most_to_set_the_threshold() -> None:
    reference, unseen = split(clean(41), np.random.default_rng(0))
    assert (len(reference), len(unseen)) == (10, 31)
    assert not set(reference.ids) & set(unseen.ids)


def by_corner(images: Images) -> Scored:
    n = len(images)
    return Scored(np.full(n, 3), images[:, 0, 0, 0].astype(float), np.full(n, 2))


def test_a_screener_compares_with_its_threshold() -> None:
    told: list[Progress] = []
    screener = ThresholdScreener(by_corner, clean(99), name="corner", false_alarm_rate=0.01, chunk=40)
    assert screener.threshold.value == 98
    images = clean(100).inputs
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
    screener = ThresholdScreener(by_corner, clean(30), name="corner", false_alarm_rate=0.1, chunk=40)
    with pytest.raises(UsageError, match="must be images uint8"):
        screener.screen(images)
