"""Small made-up samples and verdicts for the report to show."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from foretaste.cleansers.verdict import ClassEvidence, Round, Verdict
from foretaste.samples import Mask, Samples

N = 120
CLASSES = ("stop", "yield", "fifty", "ahead")
TARGET = 2


def build_samples(
    shape: tuple[int, ...] = (8, 8, 3), classes: Sequence[str] = CLASSES, ids: Sequence[str] | None = None
) -> Samples:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (N, *shape), dtype=np.uint8) if len(shape) == 3 else rng.normal(size=(N, *shape))
    return Samples.from_arrays(
        inputs, np.arange(N) % len(CLASSES), classes, ids or [f"sample-{row:03d}" for row in range(N)]
    )


def build_verdict(samples: Samples, flagged: Mask) -> Verdict:
    rng = np.random.default_rng(1)
    scores = (rng.uniform(0, 1, N) + 2 * flagged).astype(np.float32)
    condemned = {int(label) for label in samples.labels[flagged]}
    classes = tuple(
        ClassEvidence(
            label=label,
            n_samples=int((samples.labels == label).sum()),
            n_suspects=3,
            n_flagged=int((flagged & (samples.labels == label)).sum()),
            statistic=5.25 if label in condemned else 0.5,
            threshold=2.0,
            condemned=label in condemned,
            reason="Its suspects lie apart." if label in condemned else "Its suspects lie among the others.",
        )
        for label in range(len(samples.classes))
    )
    rounds = tuple(
        Round(name=f"round {r}", losses=np.exp(-scores * r), kept=scores > 0.5, seconds=1.5) for r in range(2)
    )
    return Verdict(
        scores=scores,
        flagged=flagged,
        classes=classes,
        method="confusion-training",
        seed=7,
        seconds=61.25,
        notes=("A note for the reader.",),
        rounds=rounds,
        embedding=rng.normal(size=(N, 2)).astype(np.float32),
    )


@pytest.fixture
def make_samples() -> Callable[..., Samples]:
    """Build 120 samples of 4 classes in turn: of a shape, with class names, with ids."""
    return build_samples


@pytest.fixture
def make_verdict() -> Callable[[Samples, Mask], Verdict]:
    """Build a verdict that flags as told, each flagged sample scoring above all others."""
    return build_verdict


@pytest.fixture
def samples() -> Samples:
    return build_samples()


@pytest.fixture
def poison(samples: Samples) -> Mask:
    """The first ten samples of the target class."""
    mask = np.zeros(N, dtype=np.bool_)
    mask[np.flatnonzero(samples.labels == TARGET)[:10]] = True
    return mask


@pytest.fixture
def verdict(samples: Samples, poison: Mask) -> Verdict:
    """Catches nine of the ten poison samples, with one false alarm."""
    flagged = poison.copy()
    in_class = np.flatnonzero(samples.labels == TARGET)
    flagged[in_class[[0, 20]]] = False, True
    return build_verdict(samples, flagged)


@pytest.fixture
def cleared(samples: Samples) -> Verdict:
    """Flags nothing."""
    return build_verdict(samples, np.zeros(N, dtype=np.bool_))
