import numpy as np
import pytest

from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Samples, alike, classes_of, renumbered


def some(labels: list[int], classes: list[str] | None = None, channels: int = 3) -> Samples:
    images = np.full((len(labels), 2, 2, channels), 7, np.uint8)
    return Samples.from_arrays(images, np.array(labels, dtype=np.int64), classes)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([], ()),
        ([1, 0, 1], ("0", "1")),
        ([3, 1], ("0", "1", "2", "3")),
        ([4, 1], ("1", "4")),
        ([50667, 10115, 50667], ("10115", "50667")),
    ],
)
def test_labels_without_names_are_places_or_values(labels: list[int], classes: tuple[str, ...]) -> None:
    assert classes_of(np.array(labels, dtype=np.int64)) == classes
    samples = some(labels)
    assert samples.classes == classes
    assert [int(samples.classes[label]) for label in samples.labels] == labels


def test_a_label_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(ForetasteError, match="row 1 has label 1700000000, which cannot be a class"):
        some([0, 1_700_000_000])


def test_labels_are_numbered_by_the_names_of_their_classes() -> None:
    samples = renumbered(some([0, 1, 1], ["yield", "stop"]), ("stop", "turn", "yield"), "it")
    assert samples.classes == ("stop", "turn", "yield")
    assert samples.labels.tolist() == [2, 0, 0]
    with pytest.raises(UsageError, match=r"^it: the model has no class yield; it has stop, turn$"):
        renumbered(some([0], ["yield"]), ("stop", "turn"), "it")


def test_numbers_are_places_among_names_and_equal_numbers_are_one_class() -> None:
    assert renumbered(some([0, 2, 1]), ("a", "b", "c"), "it").labels.tolist() == [0, 2, 1]
    assert renumbered(some([0, 1], ["00010", "00002"]), ("2", "10"), "it").labels.tolist() == [1, 0]
    with pytest.raises(UsageError, match="has no class 0; it has 10115, 50667"):
        renumbered(some([0, 1]), ("10115", "50667"), "it")


def test_a_class_that_does_not_occur_need_not_be_known() -> None:
    assert renumbered(some([1, 1], ["other", "stop"]), ("stop", "turn"), "it").labels.tolist() == [0, 0]


def test_grey_images_beside_rgb_get_equal_channels() -> None:
    grey, colour = some([0, 1], channels=1), some([0, 1])
    assert [one.sample_shape for one in alike(grey, grey)] == [(2, 2, 1), (2, 2, 1)]
    converted, same = alike(grey, colour)
    assert converted.sample_shape == (2, 2, 3)
    assert (converted.inputs == 7).all()
    assert same is colour
    features = Samples.from_arrays(np.zeros((2, 3)), np.array([0, 1]))
    assert alike(features, colour)[0] is features
