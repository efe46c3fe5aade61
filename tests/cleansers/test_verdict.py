import numpy as np
import pytest

from foretaste.cleansers.verdict import Verdict
from foretaste.errors import UsageError
from foretaste.samples import Samples


@pytest.fixture
def samples() -> Samples:
    return Samples.from_arrays(np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 1, 0]), ["cat", "dog"], list("abcd"))


@pytest.fixture
def verdict() -> Verdict:
    scores = np.array([1.0, 9.0, -np.inf, 1.0], dtype=np.float32)
    return Verdict(scores=scores, flagged=scores > 5, classes=(), method="a", seed=0, seconds=0.0)


def test_the_frame_has_the_columns_of_verdicts_and_of_cleanlab(samples: Samples, verdict: Verdict) -> None:
    frame = verdict.to_frame(samples)
    assert frame.to_pydict() == {
        "id": ["a", "b", "c", "d"],
        "label": [0, 1, 1, 0],
        "class": ["cat", "dog", "dog", "cat"],
        "score": [1.0, 9.0, -np.inf, 1.0],
        "flagged": [False, True, False, False],
        "is_poison_issue": [False, True, False, False],
        "poison_score": [0.75, 0.25, 1.0, 0.75],
    }
    # cleanlab sorts by the score and takes the first for the worst.
    pandas = frame.to_pandas().set_index("id")
    assert pandas.sort_values("poison_score").index[0] == "b"
    assert pandas["is_poison_issue"].dtype == bool


def test_other_samples_are_refused(samples: Samples, verdict: Verdict) -> None:
    with pytest.raises(UsageError, match="the verdict is about 4 samples, and not about 3"):
        verdict.to_frame(samples[:3])
