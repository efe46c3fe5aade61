import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from foretaste.classifiers import Answers, Classifier
from foretaste.classifiers.counting import AT_ONCE, Counted, digest
from foretaste.classifiers.python_callable import PythonCallable
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images


class Recorder:
    """Answers with the first pixel, and keeps what it was asked."""

    classes = ("a", "b")
    sample_shape = None

    def __init__(self, *, scores: bool = False) -> None:
        self.scores, self.asked = scores, list[Images]()
        self.broken = False

    def classify(self, images: Images) -> Answers:
        self.asked.append(images)
        if self.broken:
            raise ForetasteError("out of order")
        first = images[:, 0, 0, 0].astype(np.int64)
        return Answers(first, np.eye(256, dtype=np.float32)[first] if self.scores else None)


def tones(*values: int) -> Images:
    return np.array(values, dtype=np.uint8)[:, None, None, None].repeat(2, axis=1)


@pytest.mark.parametrize("scores", [False, True])
def test_identical_images_are_asked_once(scores: bool) -> None:
    recorder = Recorder(scores=scores)
    counted = Counted(recorder)
    assert isinstance(counted, Classifier)
    assert (counted.classes, counted.sample_shape, counted.queries) == (("a", "b"), None, 0)

    answers, new = counted.ask(tones(5, 7, 5, 5))
    assert answers.labels.tolist() == [5, 7, 5, 5]
    assert new.tolist() == [True, True, False, False]
    answers, new = counted.ask(tones(7, 9, 5))
    assert answers.labels.tolist() == [7, 9, 5]
    assert new.tolist() == [False, True, False]
    assert (answers.scores is not None) == scores
    if answers.scores is not None:
        assert answers.scores.argmax(axis=1).tolist() == [7, 9, 5]
    assert [images[:, 0, 0, 0].tolist() for images in recorder.asked] == [[5, 7], [9]]
    assert counted.queries == 3
    assert len(counted.classify(tones(5)[:0])) == 0


def test_the_same_bytes_in_another_shape_are_another_image() -> None:
    image = np.arange(12, dtype=np.uint8)
    assert len({digest(image.reshape(shape)) for shape in ((2, 6, 1), (6, 2, 1), (2, 2, 3), (12, 1, 1))}) == 4


def test_only_the_latest_are_remembered() -> None:
    counted = Counted(Recorder(), remembered=2)
    counted.classify(tones(1, 2))
    counted.classify(tones(1))  # now 2 is the one not used for longest
    counted.classify(tones(3))
    assert counted.queries == 3
    counted.classify(tones(1, 3))
    assert counted.queries == 3
    counted.classify(tones(2))
    assert counted.queries == 4

    nothing = Counted(Recorder(), remembered=0)
    assert nothing.classify(tones(4, 4, 5)).labels.tolist() == [4, 4, 5]
    assert nothing.queries == 2


def test_many_images_go_in_pieces() -> None:
    recorder = Recorder()
    images = tones(*(value % 256 for value in range(AT_ONCE + 300)))
    answers, new = Counted(recorder).ask(images)
    np.testing.assert_array_equal(answers.labels, images[:, 0, 0, 0])
    assert new.sum() == 256
    assert [len(one) for one in recorder.asked] == [256]


def test_a_failure_is_not_remembered() -> None:
    recorder = Recorder()
    counted = Counted(recorder)
    counted.classify(tones(1))
    recorder.broken = True
    with pytest.raises(ForetasteError, match="out of order"):
        counted.classify(tones(1, 2))
    assert counted.classify(tones(1)).labels.tolist() == [1]
    recorder.broken = False
    assert counted.classify(tones(2)).labels.tolist() == [2]
    assert counted.queries == 3


def test_no_images_are_refused() -> None:
    with pytest.raises(UsageError, match="the classifier classifies images"):
        Counted(Recorder()).classify(np.zeros((2, 3), dtype=np.uint8))


def test_threads_ask_once_between_them() -> None:
    running, go = threading.Event(), threading.Event()
    asked: list[int] = []

    class Slow(Recorder):
        def classify(self, images: Images) -> Answers:
            asked.extend(images[:, 0, 0, 0].tolist())
            running.set()
            assert go.wait(10)
            return super().classify(images)

    counted = Counted(Slow())
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(counted.classify, tones(1, 2))
        assert running.wait(10)
        second = pool.submit(counted.classify, tones(2, 1))
        go.set()
        assert first.result(10).labels.tolist() == [1, 2]
        assert second.result(10).labels.tolist() == [2, 1]
    assert asked == [1, 2]
    assert counted.queries == 2


def test_threads_do_not_get_in_each_others_way() -> None:
    counted = Counted(PythonCallable(lambda images: images[:, 0, 0, 0].astype(np.int64)), remembered=50)
    rng = np.random.default_rng(0)
    calls = [tones(*rng.integers(0, 100, 30).tolist()) for _ in range(60)]
    with ThreadPoolExecutor(8) as pool:
        for images, answers in zip(calls, pool.map(counted.classify, calls), strict=True):
            np.testing.assert_array_equal(answers.labels, images[:, 0, 0, 0])
    assert 100 >= len(np.unique(np.concatenate(calls))) <= counted.queries <= 60 * 30


def test_what_somebody_else_asked_is_not_asked_again() -> None:
    recorder = Recorder()
    counted = Counted(recorder, remembered=3)
    counted.remember(tones(1, 2), Answers(np.array([7, 8])))
    assert counted.classify(tones(2, 1)).labels.tolist() == [8, 7]
    assert counted.queries == 0
    counted.remember(tones(1), Answers(np.array([9])))  # the model has changed its mind
    counted.remember(tones(3, 4, 5), Answers(np.array([3, 4, 5])))
    assert counted.classify(tones(3)).labels.tolist() == [3]
    counted.classify(tones(1))  # forgotten: there is room for three
    assert counted.queries == 1
