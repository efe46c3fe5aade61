from pathlib import Path

import numpy as np
import pytest

from foretaste.classifiers.answer_cache import AT_ONCE, AnswerCache
from foretaste.classifiers.classifier import Answers
from foretaste.errors import ForetasteError
from foretaste.samples import Images

SHAPE = (4, 4, 3)


class Brightest:
    """Answers with the brightest quarter's number; fails after ``patience`` images."""

    classes = ("a", "b", "c", "d")
    sample_shape = SHAPE

    def __init__(self, *, scores: bool = True, patience: int = 10**9, shift: int = 0) -> None:
        self.scores, self.patience, self.shift, self.asked = scores, patience, shift, 0

    def classify(self, images: Images) -> Answers:
        if self.asked + len(images) > self.patience:
            raise ForetasteError("the model is down")
        self.asked += len(images)
        scores = images.reshape(len(images), 4, 12).mean(axis=2).astype(np.float32)
        return Answers((scores.argmax(axis=1) + self.shift) % 4, scores if self.scores else None)


def draw(n: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def same(one: Answers, other: Answers) -> None:
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.labels.dtype == other.labels.dtype
    assert (one.scores is None) == (other.scores is None)
    if one.scores is not None and other.scores is not None:
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.scores.dtype == other.scores.dtype


@pytest.mark.parametrize("scores", [True, False])
def test_a_second_run_gets_the_same_answers_without_asking(scores: bool, tmp_path: Path) -> None:
    images, bare = draw(100), Brightest(scores=scores)
    same(AnswerCache(bare, tmp_path, "m").classify(images), bare.classify(images))
    again = Brightest(scores=scores)
    cache = AnswerCache(again, tmp_path, "m")
    assert cache.kept == 100
    same(cache.classify(images), bare.classify(images))
    assert again.asked == 32  # to see that it is still the same model
    same(cache.classify(images), bare.classify(images))
    assert again.asked == 32
    assert cache.saved_seconds > 0


def test_old_and_new_questions_in_one_call_are_answered_in_their_order(tmp_path: Path) -> None:
    images, bare = draw(50), Brightest()
    AnswerCache(Brightest(), tmp_path, "m").classify(images[::2])
    cache = AnswerCache(Brightest(), tmp_path, "m")
    same(cache.classify(images), bare.classify(images))
    assert cache.kept == 50


def test_what_was_answered_before_a_failure_is_kept(tmp_path: Path) -> None:
    images = draw(3 * AT_ONCE)
    with pytest.raises(ForetasteError, match="down"):
        AnswerCache(Brightest(patience=2 * AT_ONCE), tmp_path, "m").classify(images)
    model = Brightest()
    cache = AnswerCache(model, tmp_path, "m")
    assert cache.kept == 2 * AT_ONCE
    same(cache.classify(images), Brightest().classify(images))
    assert model.asked == AT_ONCE + 32


def test_a_record_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    images = draw(40)
    AnswerCache(Brightest(), tmp_path, "m").classify(images)
    body = tmp_path / "answers.bin"
    body.write_bytes(body.read_bytes()[:-5])
    cache = AnswerCache(Brightest(), tmp_path, "m")
    assert cache.kept == 39
    same(cache.classify(images), Brightest().classify(images))
    assert AnswerCache(Brightest(), tmp_path, "m").kept == 40


@pytest.mark.parametrize("head", [b"", b"{}", b"[1]", b'{"identity": "m", "n_scores": -1}', b"\xff"])
def test_a_damaged_head_is_as_good_as_none(head: bytes, tmp_path: Path) -> None:
    images = draw(10)
    AnswerCache(Brightest(), tmp_path, "m").classify(images)
    (tmp_path / "answers.json").write_bytes(head)
    cache = AnswerCache(Brightest(), tmp_path, "m")
    assert cache.kept == 0
    same(cache.classify(images), Brightest().classify(images))


def test_another_model_is_asked_anew(tmp_path: Path) -> None:
    images = draw(40)
    AnswerCache(Brightest(), tmp_path, "m").classify(images)
    other = Brightest(shift=1)
    same(AnswerCache(other, tmp_path, "n").classify(images), Brightest(shift=1).classify(images))
    assert other.asked == 40


def test_a_model_that_changed_behind_its_name_is_asked_anew(tmp_path: Path) -> None:
    images = draw(40)
    AnswerCache(Brightest(), tmp_path, "m").classify(images)
    changed = Brightest(shift=1)
    same(AnswerCache(changed, tmp_path, "m").classify(images), Brightest(shift=1).classify(images))
    assert changed.asked == 32 + 40
    assert AnswerCache(changed, tmp_path, "m").kept == 40


def test_no_images(tmp_path: Path) -> None:
    assert len(AnswerCache(Brightest(), tmp_path, "m").classify(draw(0))) == 0
    assert list(tmp_path.iterdir()) == []


def test_it_says_what_the_model_says_of_itself(tmp_path: Path) -> None:
    cache = AnswerCache(Brightest(), tmp_path, "m")
    assert cache.classes == ("a", "b", "c", "d")
    assert cache.sample_shape == SHAPE


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    cache = AnswerCache(Brightest(), tmp_path, "m")
    (tmp_path / "answers.bin").mkdir()
    with pytest.raises(ForetasteError, match=r"cannot write .*answers"):
        cache.classify(draw(1))
