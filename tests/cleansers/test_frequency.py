from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from foretaste.cleansers.frequency import TRIGGERS, Frequency, frequencies, patch, with_trigger
from foretaste.errors import UsageError
from foretaste.progress import silent
from foretaste.samples import Images, Samples

if TYPE_CHECKING:
    from tests.cleansers.conftest import Hills


def smooth(n: int, seed: int) -> Samples:
    """Return images that have low frequencies only."""
    rng = np.random.default_rng(seed)
    places = np.arange(16)[:, None] / 16
    waves = np.cos(np.pi * places * rng.uniform(0, 2, (n, 1, 1)))
    images = 128 + 60 * waves * np.swapaxes(np.cos(np.pi * places * rng.uniform(0, 2, (n, 1, 1))), 1, 2)
    return Samples.from_arrays(np.repeat(images[..., None], 3, axis=3).astype(np.uint8), np.arange(n) % 2)


def test_frequencies_are_log_magnitudes_of_the_cosine_transform() -> None:
    flat = np.full((1, 8, 8, 1), 100, dtype=np.uint8)
    found = frequencies(flat)
    assert found.dtype == np.float32
    assert found[0, 0, 0, 0] == pytest.approx(np.log1p(800))  # the orthonormal transform multiplies a constant by 8
    assert np.abs(found).sum() == pytest.approx(np.log1p(800), abs=1e-3)


def test_every_synthetic_trigger_changes_the_image_and_stays_in_range() -> None:
    images = smooth(8, 0).inputs
    for trigger in TRIGGERS:
        changed = trigger(images[0].astype(np.float64), images[1], np.random.default_rng(0))
        assert changed.shape == images[0].shape
        assert not np.array_equal(changed, images[0])
    marked = with_trigger(images, np.random.default_rng(0))
    assert marked.dtype == np.uint8
    assert np.array_equal(marked, with_trigger(images, np.random.default_rng(0)))


def test_a_patch_is_a_quarter_of_each_side_at_most() -> None:
    black: Images = np.zeros((16, 12, 3), dtype=np.uint8)
    for seed in range(20):
        rows, columns, _ = np.nonzero(patch(black.astype(np.float64), black, np.random.default_rng(seed)))
        assert np.ptp(rows) < 4
        assert np.ptp(columns) < 3


def test_images_with_high_frequencies_are_flagged(tmp_path: Path) -> None:
    samples, clean = smooth(60, 0), smooth(200, 1)
    images = samples.images
    assert images is not None
    images[:15, 12:, 12:] = np.indices((4, 4)).sum(axis=0)[None, :, :, None] % 2 * 255
    method = Frequency(steps=60, batch_size=32, width=4, learning_rate=5e-3)
    verdict = method.inspect(samples, clean, seed=0, workdir=tmp_path, on_progress=silent)
    assert verdict.flagged[:15].mean() > 0.9
    assert verdict.flagged[15:].mean() < 0.2
    assert verdict.classes[0].threshold == 0
    again = method.inspect(samples, clean, seed=0, workdir=tmp_path, on_progress=silent)
    assert np.array_equal(verdict.scores, again.scores)


def test_a_mirrored_image_has_the_frequencies_of_a_photograph() -> None:
    """What is only moved leaves no frequency behind: such triggers, as warps, are missed."""
    samples, clean = smooth(60, 0), smooth(200, 1)
    mirrored = Samples.from_arrays(samples.inputs[:, ::-1].copy(), samples.labels)
    method = Frequency(steps=60, batch_size=32, width=4, learning_rate=5e-3)
    verdict = method.inspect(mirrored, clean, seed=0, workdir=None, on_progress=silent)
    assert verdict.flagged.mean() < 0.2


def test_feature_vectors_are_refused() -> None:
    rows = Samples.from_arrays(np.zeros((20, 3), dtype=np.float32), np.arange(20) % 2)
    with pytest.raises(UsageError, match="frequency works on images"):
        Frequency().inspect(rows, None, seed=0, workdir=None, on_progress=silent)


def test_samples_of_the_set_stand_in_for_a_clean_set(hills: "Hills") -> None:
    verdict = Frequency(steps=2, width=4).inspect(hills(40), None, seed=0, workdir=None, on_progress=silent)
    assert "40 random samples of the inspected set stood in" in verdict.notes[0]


@pytest.mark.parametrize(
    "fields", [{"steps": 0}, {"batch_size": 1}, {"learning_rate": 0.0}, {"width": 0}, {"substitute": 1}]
)
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Frequency(**fields)
