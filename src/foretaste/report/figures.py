"""The report's charts: matplotlib, as inline SVG that takes its colours from the page.

Text and lines are drawn in placeholder colours that become CSS variables, so one chart serves light, dark and print.
No chart shows a class name or an id: those come from the inspected files, and the page escapes them in HTML.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from foretaste.samples import Mask

Curve = NDArray[np.floating]

_INK, _RULE, _REST, _KEPT, _FLAG = "#0000f1", "#0000f2", "#0000f3", "#0000f4", "#0000f5"
_CSS = {_INK: "--ink-2", _RULE: "--rule", _REST: "--rest", _KEPT: "--kept", _FLAG: "--flag"}
# Pixels cannot follow the page's colours: these two read well on white and on near-black.
_REST_PIXELS, _FLAG_PIXELS = "#8b93a1", "#d9661a"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "hatch.color": _FLAG,
    "hatch.linewidth": 1.2,
    "lines.linewidth": 1.6,
}

_LEAST_LOSS, _MOST_LOSS = 1e-8, 30.0


@contextmanager
def _canvas(name: str, width: int = 360, height: int = 240) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Give axes ``width`` x ``height`` CSS pixels large, and a function that returns them as SVG.

    ``name`` keeps the ids inside the SVG apart from those of the page's other charts, and the same from run to run.
    """
    with style.context(["default", {**_STYLE, "svg.hashsalt": name}]):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        yield figure.subplots(), lambda: _svg(figure)


def _svg(figure: Figure) -> str:
    """Render as an SVG element to put into HTML: no prologue, style sheet, metadata or repeated ids."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, dpi=216, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'^<svg[^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg)
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    for placeholder, variable in _CSS.items():
        svg = svg.replace(placeholder, f"var({variable})")
    return re.sub(r">\s+<", "><", svg).strip()


def _plain(value: float, _position: int = 0) -> str:
    """Write a tick without powers of ten: 0.001, 1, 10k."""
    text = f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"
    return text.replace("e-0", "e-").replace("-", "−")


def _log_counts(axes: Axes) -> None:
    """Count samples on a logarithmic axis, so that a dozen of them beside thousands are seen."""
    axes.set_yscale("log")
    axes.set_ylim(0.7, None)
    axes.yaxis.set_major_locator(LogLocator(10, numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_ylabel("samples")


def _fill(axes: Axes, values: Curve, bins: Curve) -> None:
    axes.hist(values, bins=bins.tolist(), histtype="stepfilled", color=_REST, alpha=0.45, linewidth=0)


def _hatch(axes: Axes, values: Curve, bins: Curve) -> None:
    if values.size:
        axes.hist(values, bins=bins.tolist(), histtype="step", fill=False, edgecolor=_FLAG, hatch="////", linewidth=1.4)


def losses(name: str, losses: Curve, kept: Mask, flagged: Mask) -> str:
    """Draw how the losses of one round are spread: everything, what the round suspected, what was flagged in the end.

    Args:
        name: of the chart, distinct on the page.
        losses: ``(N,)`` nats.
        kept: ``(N,)``.
        flagged: ``(N,)``.
    """
    clipped = np.clip(np.nan_to_num(losses.astype(np.float64), nan=_MOST_LOSS), _LEAST_LOSS, _MOST_LOSS)
    bins = np.geomspace(_LEAST_LOSS, _MOST_LOSS, 49)
    with _canvas(name, width=320, height=200) as (axes, svg):
        _fill(axes, clipped, bins)
        if kept.any():
            axes.hist(clipped[kept], bins=bins.tolist(), histtype="step", color=_KEPT, linewidth=1.6)
        _hatch(axes, clipped[flagged], bins)
        axes.set_xscale("log")
        axes.set_xlim(_LEAST_LOSS, _MOST_LOSS)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks([1e-8, 1e-6, 1e-4, 1e-2, 1], ["≤1e−8", "1e−6", "0.0001", "0.01", "1"])
        axes.set_xlabel("loss on its own label (nats)")
        _log_counts(axes)
        return svg()


def scores(name: str, scores: Curve, flagged: Mask) -> str:
    """Draw how the scores ``(N,)`` are spread, flagged apart from passed, with the lowest flagged score marked.

    Scores of one sign that span more than three powers of ten are drawn on a logarithmic axis.
    """
    finite = np.isfinite(scores)
    flagged, values = flagged[finite], scores[finite].astype(np.float64)
    sizes = np.abs(values)
    smallest, largest = float(sizes[sizes > 0].min(initial=np.inf)), float(sizes.max(initial=0))
    sign = -1.0 if (values < 0).any() else 1.0
    wide = not (sign * values < 0).any() and largest > 1000 * smallest
    with _canvas(name) as (axes, svg):
        if wide:
            values = sign * np.maximum(sizes, max(smallest, 1e-6 * largest))
            bins = np.sort(sign * np.geomspace(np.abs(values).min(), largest, 61))
            # A mirrored logarithm: symmetric about 0, and linear only where no score is.
            axes.set_xscale("symlog", linthresh=float(np.abs(values).min()), linscale=0.01)
            axes.set_xlim(bins[0], bins[-1])
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
            bins = np.linspace(low, high if high > low else low + 1, 61)
        _fill(axes, values[~flagged], bins)
        _hatch(axes, values[flagged], bins)
        if flagged.any():
            axes.axvline(float(values[flagged].min()), color=_FLAG, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_xlabel("score (higher is more suspicious)")
        _log_counts(axes)
        return svg()


def false_alarms(name: str, clean_scores: Curve, threshold: float, asked: float) -> str:
    """Draw the share of clean images that score above each threshold, with the threshold and the rate asked for.

    Args:
        name: of the chart, distinct on the page.
        clean_scores: ``(M,)``, M ≥ 1.
        threshold: the one in use.
        asked: the share that may be flagged, in (0, 1).
    """
    ordered = np.sort(clean_scores[np.isfinite(clean_scores)].astype(np.float64))
    above = 1 - np.arange(1, len(ordered) + 1) / len(clean_scores)
    floor = min(0.5 / len(clean_scores), 0.8 * asked)
    with _canvas(name) as (axes, svg):
        axes.axhline(asked, color=_INK, linestyle=(0, (1, 3)), linewidth=1.2)
        axes.step(ordered, np.maximum(above, floor), where="post", color=_KEPT)
        if np.isfinite(threshold):
            axes.axvline(threshold, color=_FLAG, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.set_yscale("log")
        axes.set_ylim(floor, 1.1)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_xlabel("threshold on the score")
        axes.set_ylabel("clean images above it")
        return svg()


def queries(name: str, queries: NDArray[np.int64]) -> str:
    """Draw how many questions to the classifier the inputs cost, ``(N,)`` with N ≥ 1."""
    width = max(1, -(-int(queries.max()) // 60))
    bins = np.arange(0, int(queries.max()) + 2 * width, width) - 0.5
    with _canvas(name) as (axes, svg):
        _fill(axes, queries.astype(np.float64), bins)
        axes.axvline(float(np.median(queries)), color=_KEPT, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.set_xlabel("queries per input")
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        _log_counts(axes)
        axes.set_ylabel("inputs")
        return svg()


def ranking(name: str, statistics: Curve, suspect: Mask) -> str:
    """Draw statistics ``(M,)``, M ≥ 1, from the highest to the lowest: dots, and triangles for the suspects."""
    order = np.argsort(-statistics, kind="stable")
    places, values, marked = np.arange(1, len(order) + 1), statistics[order].astype(np.float64), suspect[order]
    with _canvas(name) as (axes, svg):
        axes.plot(places[~marked], values[~marked], "o", color=_REST, markersize=4)
        axes.plot(places[marked], values[marked], "^", color=_FLAG, markersize=8, markerfacecolor="none")
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_xlabel("rank")
        axes.set_ylabel("statistic (higher is more suspicious)")
        return svg()


def scatter(name: str, points: Curve, flagged: Mask) -> str:
    """Draw where samples lie, ``(N, 2)``: dots for those that passed, triangles for those that were flagged."""
    finite = np.isfinite(points).all(axis=1)
    (x, y), flagged = points[finite].T, flagged[finite]
    with _canvas(name, height=300) as (axes, svg):
        axes.set_rasterization_zorder(0)  # thousands of points: pixels are smaller than vectors
        axes.scatter(x[~flagged], y[~flagged], s=9, color=_REST_PIXELS, alpha=0.6, linewidths=0, zorder=-2)
        triangles = axes.scatter(x[flagged], y[flagged], s=22, marker="^", linewidths=1, zorder=-1)
        triangles.set(facecolor="none", edgecolor=_FLAG_PIXELS)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("first component")
        axes.set_ylabel("second component")
        return svg()


def roc(name: str, false_rates: Curve, true_rates: Curve, at: tuple[float, float], n_clean: int) -> str:
    """Draw the ROC curve over a logarithmic false-positive rate, with the verdict's own point.

    Args:
        name: of the chart, distinct on the page.
        false_rates: ``(M,)`` in [0, 1], rising.
        true_rates: ``(M,)`` in [0, 1], rising.
        at: the verdict's false- and true-positive rate.
        n_clean: number of samples that are not poison; half of one is where a rate of 0 is drawn.
    """
    floor = 0.5 / max(n_clean, 1)
    with _canvas(name, height=300) as (axes, svg):
        axes.plot(np.maximum(false_rates, floor), true_rates, color=_KEPT, drawstyle="steps-post", clip_on=False)
        axes.plot([max(at[0], floor)], [at[1]], marker="D", markersize=8, color=_FLAG, linestyle="none", clip_on=False)
        axes.set_xscale("log")
        axes.set_xlim(floor, 1)
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
        axes.grid(visible=True, color=_RULE, linewidth=0.6)
        axes.set_xlabel("false-positive rate (log scale)")
        axes.set_ylabel("true-positive rate")
        return svg()
