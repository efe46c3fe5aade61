import math

import pytest

from foretaste.report import wording


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.5, "50 %"),
        (0.00114, "0.11 %"),
        (0.00001, "< 0.01 %"),
        (0.99996, "> 99.99 %"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_share(part: float | None, text: str) -> None:
    assert wording.share(part).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7.314, "7.31"),
        (-39.4, "−39.4"),
        (-0.0000141, "−1.41e−5"),
        (0.0, "0"),
        (1.5e10, "1.5e10"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
    ],
)
def test_figure(value: float, text: str) -> None:
    assert wording.figure(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.123, "0.123 s"),
        (9.99, "9.99 s"),
        (12.3, "12 s"),
        (59.9, "1 min 0 s"),
        (577, "9 min 37 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert wording.duration(seconds).replace("\u00a0", " ") == text


def test_long_names_lose_their_middle() -> None:
    assert wording.short("a" * 60) == "a" * 60
    assert len(wording.short("a" * 50 + "b" * 5000)) <= 60
    assert wording.short("a" * 50 + "b" * 5000).endswith("b")
