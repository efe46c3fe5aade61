"""The parts that NEO is made of."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.classifiers.classifier import Answers
from foretaste.guards.neo.batched_queries import Queries, ask
from foretaste.guards.neo.inpainting import dominant_colour, with_surround
from foretaste.guards.neo.reconstruct import extent
from foretaste.guards.neo.regions import Box, places, quarters, small_enough
from foretaste.guards.neo.sequential import SequentialTest
from foretaste.samples import Images


@pytest.mark.parametrize(("height", "width", "largest"), [(32, 32, 5), (112, 92, 15), (33, 28, 4), (8, 9, 2)])
def test_any_square_up_to_the_largest_lies_whole_in_a_smallest_box(height: int, width: int, largest: int) -> None:
    smallest = [box for box in places(height, width, largest) if small_enough(box, largest)]
    for top in range(height - largest + 1):
        for left in range(width - largest + 1):
            assert any(
                box.top <= top and box.left <= left and top + largest <= box.bottom and left + largest <= box.right
                for box in smallest
            )


def test_quarters_are_smaller() -> None:
    assert quarters(Box(0, 0, 32, 32), 5) == [(0, 0, 18, 18), (0, 14, 18, 32), (14, 0, 32, 18), (14, 14, 32, 32)]


def test_overlap_is_intersection_over_union() -> None:
    assert Box(0, 0, 2, 2).overlap(Box(1, 0, 3, 2)) == pytest.approx(2 / 6)
    assert Box(0, 0, 2, 2).overlap(Box(2, 2, 3, 3)) == 0


def test_the_sequential_test_keeps_its_error_rates() -> None:
    test = SequentialTest(p0=0.3, p1=0.9, alpha=0.02, beta=0.05)
    rng = np.random.default_rng(0)

    def run(rate: float) -> bool:
        turned = kept = 0
        while (decision := test.decide(turned, kept)) is None:
            hit = bool(rng.random() < rate)
            turned, kept = turned + hit, kept + (not hit)
        return decision

    # Wald's bounds, plus three standard errors of 2,000 runs.
    assert np.mean([run(0.3) for _ in range(2000)]) <= 0.02 / 0.95 + 0.01
    assert np.mean([not run(0.9) for _ in range(2000)]) <= 0.05 / 0.98 + 0.016


def test_the_peak_is_the_highest_score_on_the_way() -> None:
    test = SequentialTest(p0=0.3, p1=0.9, alpha=0.02, beta=0.05)
    assert test.peak([True, True, False]) == test.score(2, 0)
    assert test.peak([]) == test.lowest


def test_searches_are_asked_together_and_counted_apart() -> None:
    class Brightness:
        classes = sample_shape = None
        batches: list[int]

        def classify(self, images: Images) -> Answers:
            self.batches.append(len(images))
            return Answers(images[:, 0, 0, 0].astype(np.int64))

    def count_to(n: int) -> Queries[int]:
        total = 0
        for value in range(n):
            total += int((yield np.full((2, 1, 1, 1), value, dtype=np.uint8)).sum())
        return total

    classifier = Brightness()
    classifier.batches = []
    asked = ask([lambda n=n: count_to(n) for n in (0, 3, 1)], classifier)  # type: ignore[misc]
    assert [(one.result, one.queries) for one in asked] == [(0, 0), (6, 6), (0, 2)]
    assert classifier.batches == [4, 2, 2]


def test_the_dominant_colour_is_that_of_most_pixels() -> None:
    image = np.full((8, 8, 3), 200, dtype=np.uint8)
    image[:2] = [10, 20, 30]
    image[2, 0] = [90, 250, 0]
    assert dominant_colour(image).tolist() == [200, 200, 200]


def test_the_surround_continues_a_slope_and_nothing_else_changes() -> None:
    image = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8)[:, None], (16, 16, 1)[:2])[..., None].copy()
    mask = np.ones((4, 4), dtype=np.bool_)
    holed = image.copy()
    holed[6:10, 6:10] = 255
    filled = with_surround(holed, Box(6, 6, 10, 10), mask)
    assert np.abs(filled.astype(int) - image).max() <= 3
    outside = np.ones((16, 16), dtype=np.bool_)
    outside[6:10, 6:10] = False
    np.testing.assert_array_equal(filled[outside], image[outside])


def test_the_extent_grows_and_shrinks_to_where_the_agreement_ends() -> None:
    agreed = np.zeros((12, 12), dtype=np.bool_)
    agreed[3:8, 4:9] = True
    for start in (Box(4, 5, 6, 7), Box(2, 3, 7, 8), Box(3, 4, 8, 9)):
        assert extent(agreed, agreed, start) == (3, 4, 8, 9)
