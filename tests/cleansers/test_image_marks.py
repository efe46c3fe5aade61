from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from foretaste.cleansers.confusion_training import ConfusionTraining
from foretaste.cleansers.image_marks import ImageRun, better_half, denied, unnatural
from foretaste.cleansers.judgement import hump, named
from foretaste.cleansers.verdict import ClassEvidence
from foretaste.progress import silent
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.cleansers.conftest import Hills


CLEARED = ClassEvidence(
    label=0, n_samples=4, n_suspects=1, n_flagged=0, statistic=1, threshold=6, condemned=False, reason=""
)


def dark(labels: NDArray[np.int64], classes: tuple[str, ...]) -> ImageRun:
    """Return a run over black images with these labels, of which nothing is known yet."""
    images = np.zeros((len(labels), 16, 16, 3), dtype=np.uint8)
    return ImageRun(ConfusionTraining(), Samples.from_arrays(images, labels, classes), None, 0, None, silent)


def test_the_next_base_model_leaves_out_the_flagged_and_some_who_score_high() -> None:
    odd = np.array([0.4, 0.6, 0.8, 2.0] * 3, dtype=np.float32)
    # Of class a one image scores high by its place, one by its shape, and the others by how sharp they are.
    scores = np.stack([np.where(np.arange(12) == 2, 0, odd), np.where(np.arange(12) == 3, 0, odd), np.full(12, 2.0)])
    run = dark(np.repeat([0, 1, 2], 4), ("a", "b", "c"))
    flagged = np.isin(np.arange(12), [7, 11])
    # Class a is not condemned; nature doubts the flagged of class b, but took the mark of class c for nature.
    found = (CLEARED, *(replace(CLEARED, label=label, n_flagged=1, condemned=True) for label in (1, 2)))
    left = run.left_out(scores, flagged, np.arange(12) == 7, found)
    assert np.flatnonzero(left).tolist() == [2, 3, 7, 9, 10, 11]


def test_a_shape_that_most_of_a_class_has_leaves_nobody_out() -> None:
    run, nobody = dark(np.zeros(4, dtype=np.int64), ("a",)), np.zeros(4, dtype=np.bool_)
    by_place = np.array([2, 0, 0, 0], dtype=np.float32)
    for by_shape, left_out in ([0, 2, 2, 0], [0, 1, 2]), ([0, 2, 2, 2], [0]):
        scores = np.stack([by_place, np.array(by_shape, dtype=np.float32), np.zeros(4, dtype=np.float32)])
        assert np.flatnonzero(run.left_out(scores, nobody, nobody, (CLEARED,))).tolist() == left_out


def marked(hills: Hills, doubt: int, flagged: NDArray[np.bool_], n_condemned: int = 1) -> tuple[NDArray[np.bool_], ...]:
    """Return who is flagged in the end, who carries a mark, and the labels, of three classes of four hundred images.

    The first forty of classes a and b and five of class c carry the mark. By their scores alone those who are flagged
    would be found, of the others with the mark three at most.

    Args:
        hills: draws the images.
        doubt: classes, from class a on, of which nature doubts the labels of the marked; and of a fifth of all samples,
            unless 0.
        flagged: ``bool (1200,)``.
        n_condemned: classes that are condemned, from class a on.
    """
    images = hills(1200, side=12, n_classes=3).inputs
    order = np.argsort(np.arange(1200) % 3, kind="stable")
    images, labels = images[order], np.repeat([0, 1, 2], 400)
    marks = np.isin(np.arange(1200), [*range(40), *range(400, 440), *range(800, 805)])
    images[marks, :3, :3] = [250, 20, 250]
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 0.3, (3, 1200)).astype(np.float32)
    scores[0] += np.where(flagged, rng.normal(2, 0.4, 1200), 0.3 * marks)
    doubted = ((marks & (labels < doubt)) | (np.arange(1200) % 5 == 0)) & (doubt > 0)
    run = ImageRun(ConfusionTraining(), Samples.from_arrays(images, labels, ("a", "b", "c")), None, 0, None, silent)
    found = tuple(
        replace(CLEARED, label=label, n_samples=400, n_flagged=1, condemned=label < n_condemned) for label in range(3)
    )
    for members in (labels == label for label in range(n_condemned)):
        by_scores = hump(scores[:, members].T, flagged[members], doubted[members]) > 0
        assert by_scores[(marks & ~flagged)[members]].sum() <= 3
    told, final = run.told(scores, flagged, doubted, found)
    if final.tolist() != flagged.tolist():
        assert (told[final] > 1).all()
        assert (told[~final & (labels < n_condemned)] <= 1).all()
    return final, marks, labels


def test_a_detector_finds_the_poison_that_the_confused_models_miss(hills: Hills) -> None:
    final, marks, labels = marked(hills, 3, np.arange(1200) < 30)
    # Other classes are none of its business.
    assert final.tolist() == (marks & (labels == 0)).tolist()


def test_of_a_mark_that_nature_took_for_its_own_a_detector_learns_from_the_surest(hills: Hills) -> None:
    # Of forty, thirty were found, and fifteen others.
    final, marks, labels = marked(hills, 0, np.isin(np.arange(1200), [*range(30), *range(100, 115)]))
    assert final.tolist() == (marks & (labels == 0)).tolist()


def test_where_most_classes_are_condemned_the_mark_condemns_in_the_others_too(hills: Hills) -> None:
    final, marks, _ = marked(hills, 3, np.isin(np.arange(1200), [*range(40), *range(400, 440)]), n_condemned=2)
    assert final.tolist() == marks.tolist()
    # Those of class c that have their natural label, all but the first, are like cover samples.
    final, marks, labels = marked(hills, 2, np.isin(np.arange(1200), [*range(40), *range(400, 440)]), n_condemned=2)
    assert np.flatnonzero(final).tolist() == [*np.flatnonzero(marks & (labels < 2)), 800]


def test_a_detector_that_does_not_recognise_what_it_learnt_is_not_believed(hills: Hills) -> None:
    # Those who were flagged have nothing in common.
    flagged = np.isin(np.arange(1200), range(100, 130))
    final, _, _ = marked(hills, 0, flagged)
    assert final.tolist() == flagged.tolist()


def test_the_most_natural_of_each_class_stand_in() -> None:
    # Class 0 is easy, class 2 has suspects only.
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    losses = np.array([0.1, 0.3, 0.2, 0.05, 4, 3, 2, 0.1], dtype=np.float32)
    suspect = np.arange(8) == 7
    assert sorted(better_half(losses, labels, suspect)) == [0, 3, 5, 6]
    suspect[3] = True
    assert sorted(better_half(losses, labels, suspect)) == [0, 2, 5, 6]


def test_the_last_output_is_taken_from_natures_answer() -> None:
    nature = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]])
    outputs = torch.tensor([[0.5, 0.25, 0.0, 1.0], [0.0, 1.0, 0.0, -2.0]])
    assert unnatural(nature, outputs).tolist() == [[1.5, 0.25, 1.0], [0.0, 1.0, 5.0]]
    assert torch.equal(unnatural(nature, torch.zeros(2, 4)), nature)


def test_the_score_is_what_the_own_label_gained() -> None:
    residual = np.array([[3, 0, 0, 2], [3, 0, 0, 2], [3, 0, 0, -2], [0, 0, 0, 4]], dtype=np.float32)
    assert named(residual[:, :-1], np.array([0, 1, 2, 1])).tolist() == [2, -1, -1, 0]
    # Nature answers 1: who is labelled so is denied nothing, and a negative last output takes nothing away.
    assert denied(residual, np.array([True, False, True, False])).tolist() == [2, 0, 0, 0]
