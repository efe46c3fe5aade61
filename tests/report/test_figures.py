import warnings
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes

from foretaste.report import figures

rng = np.random.default_rng(0)
FLAGGED = np.arange(300) < 20
VALUES = rng.gamma(1, size=300)

CHARTS: dict[str, Callable[[], str]] = {
    "losses": lambda: figures.losses("x", VALUES, VALUES < 0.5, FLAGGED),
    "losses, nothing kept": lambda: figures.losses("x", VALUES * 0, ~FLAGGED & FLAGGED, ~FLAGGED & FLAGGED),
    "losses, not finite": lambda: figures.losses("x", np.full(300, np.nan), FLAGGED, FLAGGED),
    "scores": lambda: figures.scores("x", VALUES, FLAGGED),
    "scores of one value": lambda: figures.scores("x", np.ones(300), FLAGGED),
    "scores of zero": lambda: figures.scores("x", np.zeros(300), FLAGGED),
    "scores, negative": lambda: figures.scores("x", -(VALUES**6), FLAGGED),
    "scores, of both signs": lambda: figures.scores("x", VALUES - 1, FLAGGED),
    "scores, some infinite": lambda: figures.scores("x", np.where(FLAGGED, np.inf, VALUES), FLAGGED),
    "scores, all flagged": lambda: figures.scores("x", VALUES, FLAGGED | ~FLAGGED),
    "scatter": lambda: figures.scatter("x", rng.normal(size=(300, 2)), FLAGGED),
    "scatter, some unknown": lambda: figures.scatter("x", np.where(FLAGGED[:, None], np.nan, np.ones(2)), FLAGGED),
    "false alarms": lambda: figures.false_alarms("x", VALUES, 2.5, 0.01),
    "false alarms, few and equal": lambda: figures.false_alarms("x", np.zeros(20), np.inf, 0.01),
    "queries": lambda: figures.queries("x", np.arange(300) % 64),
    "queries, thousands": lambda: figures.queries("x", np.array([0, 1, 676, 9000])),
    "queries, none": lambda: figures.queries("x", np.zeros(3, dtype=np.int64)),
    "ranking": lambda: figures.ranking("x", VALUES, FLAGGED),
    "ranking of one": lambda: figures.ranking("x", np.ones(1), np.ones(1, dtype=np.bool_)),
    "roc": lambda: figures.roc("x", np.array([0, 0, 0.1, 1]), np.array([0, 0.9, 1, 1]), (0.0, 0.9), 1000),
}


@pytest.mark.parametrize("chart", CHARTS)
def test_charts_are_svg_in_the_colours_of_the_page(chart: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = CHARTS[chart]()
    ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert "var(--ink-2)" in svg
    assert "#0000f" not in svg
    assert "font-family" not in svg


@pytest.mark.parametrize("chart", ["losses", "scores", "roc"])
def test_charts_are_the_same_each_time(chart: str) -> None:
    assert CHARTS[chart]() == CHARTS[chart]()


def test_the_users_own_matplotlib_settings_do_not_matter() -> None:
    plain = CHARTS["scores"]()
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "axes.facecolor": "red"}):
        assert CHARTS["scores"]() == plain


@pytest.mark.parametrize("sign", [1, -1])
def test_every_score_is_counted_on_the_logarithmic_axis(sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0.0
    histogram = Axes.hist

    def count(axes: Axes, *args: object, **options: object) -> object:
        nonlocal counted
        drawn = histogram(axes, *args, **options)  # type: ignore[arg-type]
        counted += float(np.sum(drawn[0]))
        return drawn

    monkeypatch.setattr(Axes, "hist", count)
    values = sign * np.concatenate([[0.0], np.geomspace(1e-9, 1e3, 299)])
    figures.scores("x", values, FLAGGED)
    assert counted == 300


def test_the_smallest_losses_are_drawn_at_the_edge() -> None:
    nobody = np.zeros(5, dtype=np.bool_)
    smallest = figures.losses("x", np.zeros(5, dtype=np.float32), nobody, nobody)
    assert smallest == figures.losses("x", np.full(5, 1.01e-8), nobody, nobody)
