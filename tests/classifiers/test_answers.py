from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.classifiers import Answers
from foretaste.classifiers.answers import read_answers
from foretaste.classifiers.batches import check_images, in_batches, join
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images


@pytest.mark.parametrize(
    "output", [np.array([2, 0, 1]), np.array([[2], [0], [1]], dtype=np.uint8), np.array([2, 0, 1], dtype=np.uint64)]
)
def test_labels(output: NDArray[Any]) -> None:
    answers = read_answers(output, 3, "it")
    assert answers.labels.tolist() == [2, 0, 1]
    assert answers.labels.dtype == np.int64
    assert answers.scores is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores(dtype: type[np.floating[Any]]) -> None:
    answers = read_answers(np.array([[0.5, -1], [0, 2]], dtype=dtype), 2, "it", ("a", "b"))
    assert answers.labels.tolist() == [0, 1]
    assert answers.scores is not None
    assert answers.scores.dtype == np.float32
    assert answers.scores.tolist() == [[0.5, -1], [0, 2]]


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (np.array([0, 1]), r"answers 3 images with int64 \(2,\)"),
        (np.zeros((2, 2)), r"float64 \(2, 2\)"),
        (np.zeros(3), r"float64 \(3,\)"),
        (np.zeros((3, 2, 2)), r"float64 \(3, 2, 2\)"),
        (np.zeros((3, 4), dtype=np.int64), r"int64 \(3, 4\)"),
        (np.array(["a", "b", "c"]), "which is neither"),
        (np.array([True, False, True]), "which is neither"),
        (np.array(None), "which is neither"),
        (np.array([0, -1, 2]), "label -1, which is outside"),
        (np.array([0, 1, 10**15]), "label 1000000000000000, which is outside"),
        (np.array([0, 1, 2**64 - 1], dtype=np.uint64), "which is outside"),
        (np.array([[0, np.nan]] * 3), "NaN or infinite"),
        (np.array([[0, 1e300]] * 3), "NaN or infinite"),
    ],
)
def test_what_is_no_answer_is_one_sentence(output: NDArray[Any], complaint: str) -> None:
    with pytest.raises(ForetasteError, match=f"^it .*{complaint}"):
        read_answers(output, 3, "it")


def test_answers_must_fit_the_class_names() -> None:
    with pytest.raises(ForetasteError, match="label 2, which is outside its 2 classes"):
        read_answers(np.array([0, 2]), 2, "it", ("a", "b"))
    with pytest.raises(ForetasteError, match="3 scores per image but has 2 classes"):
        read_answers(np.zeros((2, 3)), 2, "it", ("a", "b"))


def test_batches_keep_the_order() -> None:
    images, sizes = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1), list[int]()

    def ask(batch: Images) -> Answers:
        sizes.append(len(batch))
        return Answers(batch.reshape(-1).astype(np.int64))

    assert in_batches(images, 3, ask).labels.tolist() == list(range(7))
    assert sizes == [3, 3, 1]
    assert len(in_batches(images[:0], 3, ask)) == 0


def test_answers_of_two_kinds_do_not_join() -> None:
    labels = Answers(np.zeros(1, dtype=np.int64))
    two, three = (Answers(labels.labels, np.zeros((1, k), dtype=np.float32)) for k in (2, 3))
    for parts in ([labels, two], [two, three]):
        with pytest.raises(ForetasteError, match="each of the same classes"):
            join(parts)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), dtype=np.float32),
        np.zeros((2, 8, 8), dtype=np.uint8),
        np.zeros((2, 8, 8, 1), dtype=np.uint8),
        np.zeros((2, 8, 9, 3), dtype=np.uint8),
    ],
)
def test_wrong_images_are_refused(images: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match=r"^it "):
        check_images(images, (8, 8, 3), "it")
    check_images(np.zeros((0, 5, 8, 3), dtype=np.uint8), (None, 8, 3), "it")


def test_one_number_per_image_is_the_probability_of_the_second_class() -> None:
    answers = read_answers(np.array([[0.1], [0.5], [0.75]]), 3, "it", ("a", "b"))
    assert answers.labels.tolist() == [0, 0, 1]
    assert answers.scores is not None
    np.testing.assert_allclose(answers.scores, [[0.9, 0.1], [0.5, 0.5], [0.25, 0.75]], rtol=1e-6)
    for value in (-2.0, 1.5, float("nan")):
        with pytest.raises(ForetasteError, match="it answers with one number per image, which must be a probability"):
            read_answers(np.array([[0.5], [value]]), 2, "it")


def test_names_of_classes_are_no_answer() -> None:
    with pytest.raises(ForetasteError, match="names of classes are not understood"):
        read_answers(np.array([b"cat", b"dog"]), 2, "it")
