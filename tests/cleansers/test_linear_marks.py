import numpy as np
import pytest

from foretaste.cleansers import linear_marks
from foretaste.cleansers.linear_marks import FARTHEST, Scale, confused, leaned
from foretaste.progress import silent
from foretaste.samples import Samples


def told(n: int, features: list[int], seed: int) -> Samples:
    """Return vectors of four normal features, of which these tell the class: they lie 1.5 above or below 0."""
    labels = np.arange(n) % 2
    rows = np.random.default_rng(seed).normal(size=(n, 4))
    rows[:, features] += np.where(labels, 1.5, -1.5)[:, None]
    return Samples.from_arrays(rows.astype(np.float32), labels)


def test_what_clean_samples_have_too_tells_less() -> None:
    samples, clean = told(600, [0, 1], 0), told(600, [0], 1)
    nature = np.full((600, 2), np.log(0.5), dtype=np.float32)
    weights = confused(samples, nature, np.arange(600), clean, Scale(samples.inputs), 2.0)
    strength = weights[:, 1] - weights[:, 0]
    assert strength[1] > 2 * strength[0] > 0
    assert np.abs(strength[2:]).max() < strength[0] / 2
    # The more confusion counts, the less.
    held_back = confused(samples, nature, np.arange(600), clean, Scale(samples.inputs), 20.0)
    assert np.abs(held_back).max() < np.abs(weights).max() / 2


def test_what_nature_knows_is_not_repeated() -> None:
    samples = told(600, [0], 0)
    nothing = np.full((600, 2), np.log(0.5), dtype=np.float32)
    nature = np.log(np.where(np.eye(2)[samples.labels] > 0, 0.98, 0.02)).astype(np.float32)
    some, none = (
        np.abs(leaned(samples, known, samples, np.arange(600) % 2, 2.0, "confuse", silent)).mean()
        for known in (nothing, nature)
    )
    assert none < some / 5


def test_each_part_is_judged_by_models_that_never_saw_it() -> None:
    samples = told(300, [0], 0)
    nature, fold = np.full((300, 2), np.log(0.5), dtype=np.float32), np.arange(300) % 3
    before = leaned(samples, nature, samples, fold, 2.0, "confuse", silent)
    turned = samples.with_labels(np.where(fold == 1, 1 - samples.labels, samples.labels))
    after = leaned(turned, nature, samples, fold, 2.0, "confuse", silent)
    changed = (before != after).any(axis=1)
    assert not changed[fold == 1].any()
    assert changed[fold != 1].all()


def test_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, nature = told(200, [0], 0), np.full((200, 2), np.log(0.5), dtype=np.float32)
    whole = leaned(samples, nature, samples, np.arange(200) % 2, 2.0, "confuse", silent)
    monkeypatch.setattr(linear_marks, "AT_ONCE", 7)
    assert np.allclose(leaned(samples, nature, samples, np.arange(200) % 2, 2.0, "confuse", silent), whole, atol=1e-4)


def test_features_are_measured_by_their_spread() -> None:
    rows = np.array([[0, 0.1, -1], [2, 0.1, 1], [4, 0.1, 1000]], dtype=np.float32)
    scale = Scale(rows)
    assert scale(rows)[:, 0] == pytest.approx([-np.sqrt(1.5), 0, np.sqrt(1.5)])
    assert scale(rows)[:, 1] == pytest.approx([0] * 3)
    assert scale(np.array([[1e6, 0.1, -1e6]], dtype=np.float32))[0] == pytest.approx([FARTHEST, 0, -FARTHEST])
