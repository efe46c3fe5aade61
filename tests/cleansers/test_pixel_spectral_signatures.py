from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from foretaste.attacks import SIG, poison_training_set
from foretaste.cleansers.pixel_spectral_signatures import PixelSpectralSignatures, part
from foretaste.errors import UsageError
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Mask, Samples

if TYPE_CHECKING:
    from tests.cleansers.conftest import Hills

TARGET = 2


METHOD = PixelSpectralSignatures()


def found_in(samples: Samples, clean: Samples | None = None, report: OnProgress = silent) -> Mask:
    verdict = METHOD.inspect(samples, clean, on_progress=report)
    for entry in verdict.classes:
        assert entry.condemned == (entry.statistic >= entry.threshold) == (entry.n_flagged > 0)
    return verdict.flagged


# 2,400 images are 200 of each class.
@pytest.mark.parametrize(
    ("rate", "n_clean"),
    [(1 / 60, 0), (1 / 30, 0), (1 / 30, 240), (1 / 15, 240)],
    ids=["a fifth", "two fifths", "two fifths and a clean set", "four fifths and a clean set"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_wave_on_part_of_a_class_is_found(hills: Hills, rate: float, n_clean: int, seed: int) -> None:
    poisoned = poison_training_set(hills(2400, seed=seed, n_classes=12), SIG(rate=rate, target=TARGET), seed)
    found = found_in(poisoned.samples, hills(n_clean, seed=9, n_classes=12) if n_clean else None)
    assert set(poisoned.samples.labels[found]) == {TARGET}
    assert found[poisoned.poison].mean() >= 0.95
    assert np.count_nonzero(found & ~poisoned.poison) <= 3


@pytest.mark.parametrize(("side", "channels"), [(16, 3), (17, 1), (72, 3)])
def test_nothing_is_found_where_nothing_is(hills: Hills, side: int, channels: int) -> None:
    assert not found_in(hills(600, side=side, channels=channels)).any()


def test_large_images_are_shrunk() -> None:
    rng = np.random.default_rng(0)
    # Unlike hills, all of another look.
    images = rng.integers(90, 160, (2400, 8, 8, 1)).repeat(8, axis=1).repeat(8, axis=2).astype(np.float64)
    images += rng.normal(0, 12, images.shape)
    labels = np.arange(2400) % 12
    marked = np.flatnonzero(labels == TARGET)[:80]
    squares = np.indices((16, 16, 1))[:2].sum(axis=0) // 4 % 2
    images[marked, 8:24, 8:24] += 60 * squares - 30
    found = found_in(Samples.from_arrays(images.clip(0, 255).astype(np.uint8), labels))
    assert np.flatnonzero(found).tolist() == marked.tolist()


def test_frames_of_one_video_are_no_pattern(hills: Hills) -> None:
    samples = hills(1200)
    images, frames = samples.inputs.astype(np.int16), np.flatnonzero(samples.labels == TARGET)[:100]
    noise = np.random.default_rng(1).integers(-4, 5, (100, 16, 16, 3))
    stripes = 120 * (np.arange(16) % 4 < 2)[:, None, None]
    images[frames] = stripes + noise + 60
    filmed = Samples.from_arrays(images.clip(0, 255).astype(np.uint8), samples.labels)
    assert not found_in(filmed).any()


def test_classes_of_few_or_none_are_no_trouble(hills: Hills) -> None:
    few = hills(2 * METHOD.fewest)
    samples = Samples(few.labels, (*few.classes, "none at all"), few.ids, images=few.images)
    seen: list[Progress] = []
    assert not found_in(samples, report=seen.append).any()
    assert [report.done for report in seen] == [1, 2, 3, 4, 5]
    assert {report.total for report in seen} == {5}


def test_the_further_of_two_distributions_is_flagged() -> None:
    rng = np.random.default_rng(0)
    assert part(rng.normal(0, 2, 400), 0.0).gain < METHOD.gain
    two, second = np.concatenate([rng.normal(0, 1, 300), rng.normal(8, 2, 100)]), np.arange(400) >= 300
    parting = part(two, 0.0)
    assert parting.gain > METHOD.gain
    assert parting.separation > METHOD.separation
    assert np.count_nonzero(parting.further(two) != second) <= 4
    assert np.count_nonzero(part(two, 8.0).further(two) != ~second) <= 4
    assert parting.further(np.array([-1.0, 7.0, 30.0])).tolist() == [False, True, True]
    # What spreads wider about the same place is no second distribution.
    wide = part(np.concatenate([rng.normal(0, 1, 300), rng.normal(0, 2, 100)]), 0.0)
    assert wide.separation < METHOD.separation
    nothing = part(np.zeros(100), 0.0)
    assert nothing.gain == 0
    assert not nothing.further(np.zeros(100)).any()


def test_a_pattern_that_clean_samples_have_too_condemns_no_class(hills: Hills) -> None:
    def marked(n: int, seed: int) -> Samples:
        return poison_training_set(hills(n, seed=seed, n_classes=12), SIG(rate=1 / 30, target=TARGET), seed).samples

    _, patterns = METHOD.project(marked(2400, 0), marked(240, 9), 0, silent)
    pattern = patterns[TARGET]
    # Two fifths of the class's 20 clean images carry it, as of its 200 others.
    assert len(pattern.carriers) == pytest.approx(80, abs=4)
    assert pattern.statistic < 1
    assert not pattern.condemns
    assert "of its 20 clean images" in pattern.reason


def test_how_surely_clean_samples_lack_a_pattern(hills: Hills) -> None:
    poisoned = poison_training_set(hills(2400, seed=0, n_classes=12), SIG(rate=1 / 30, target=TARGET), 0)
    _, patterns = METHOD.project(poisoned.samples, hills(240, seed=9, n_classes=12), 0, silent)
    pattern = patterns[TARGET]
    # None of 20, where each would carry it as often as one of the class does.
    assert pattern.statistic == pytest.approx(-20 * np.log10(1 - len(pattern.carriers) / 200))
    assert pattern.threshold == pytest.approx(-np.log10(METHOD.false_condemnations / 12))
    assert pattern.condemns


def test_feature_vectors_are_refused() -> None:
    samples = Samples.from_arrays(np.zeros((20, 3), dtype=np.float32), np.arange(20) % 2)
    with pytest.raises(UsageError, match="feature vectors"):
        METHOD.inspect(samples, None)


@pytest.mark.parametrize(
    "field", ["folds", "gain", "separation", "fewest", "most", "largest_side", "ridge", "false_condemnations"]
)
def test_values_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(UsageError, match=field):
        PixelSpectralSignatures(**{field: 0})
