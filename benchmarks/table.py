"""Print the tables of docs/results.md from the files in ``benchmarks/results``; ``--write`` puts them there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
GUARDED = {
    "gtsrb": "GTSRB",
    "cifar10": "CIFAR-10 (JPEG)",
    "signs": "signs",
    "orl": "ORL faces",
    "digits": "digits on black",
}


def guarding(file: str) -> Iterator[str]:
    """Yield the lines of the table of NEO: one per data set and backdoor, over networks, seeds and streams."""
    yield (
        "| data | backdoor | models | attack success before → after | found | false alarms | answers right | IoU "
        "| questions, first search: trojaned, clean (most) | ms | known trigger: time, questions |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, case in json.loads((HERE / "results" / file).read_text())["cases"].items():
        data, _, backdoor, _ = key.split(", ")
        groups.setdefault((data, backdoor), []).append(case)
    order = list(GUARDED)
    for (data, backdoor), cases in sorted(groups.items(), key=lambda group: order.index(group[0][0])):
        streams = [stream for case in cases for stream in case["streams"].values()]
        before, after = (mean(stream[f"attack_success_{when}"] for stream in streams) for when in ("before", "after"))
        first, calm = ([case[f"first_search_{kind}"] for case in cases] for kind in ("trojaned", "clean"))
        yield (
            f"| {GUARDED[data]} | {backdoor} | {len(cases)} | {share(before)} → {share(after)} "
            f"| {middle_and_worst(streams, 'detected', min)} | {middle_and_worst(streams, 'false_alarms', max)} "
            f"| {middle_and_worst(streams, 'corrected_accuracy', min)} | {number(typical(streams, 'iou'), 2)} "
            f"| {number(typical(first, 'median'), 0)}, {number(typical(calm, 'median'), 0)} "
            f"({max(case['most'] for case in first + calm)}) "
            f"| {number(typical(streams, 'ms_per_image'), 1)} "
            f"| {number(typical([c['steady'] for c in cases], 'time_over_bare'), 2)} ×, "
            f"{number(typical([c['steady'] for c in cases], 'queries_per_image'), 2)} |"
        )


def false_alarms() -> Iterator[str]:
    """Yield a sentence on the guard's false alarms over all models, on the streams with the most clean inputs."""
    cases = json.loads((HERE / "results" / "guard-before.json").read_text())["cases"].values()
    rates = [case["streams"]["1%"]["false_alarms"] for case in cases]
    margin = 1.96 * stdev(rates) / len(rates) ** 0.5
    yield (
        f"Over all {len(rates)} models the guard, asked for 1 %, called {share(mean(rates))} of the clean inputs "
        f"trojaned (95 % interval of the mean: {share(mean(rates) - margin)} to {share(mean(rates) + margin)})."
    )


def known(cases: list[dict[str, Any]], what: str) -> list[float]:
    """Return a figure of the cases that have it."""
    return [case[what] for case in cases if case[what] is not None]


def typical(cases: list[dict[str, Any]], what: str) -> float | None:
    """Return the median of a figure over the cases that have it; None if none has."""
    values = known(cases, what)
    return median(values) if values else None


def middle_and_worst(cases: list[dict[str, Any]], what: str, worst: Callable[[list[float]], float]) -> str:
    """Write a share's median, and in brackets its worst."""
    values = known(cases, what)
    return f"{share(median(values))} ({share(worst(values))})" if values else "–"


def number(value: float | None, digits: int) -> str:
    """Write a number."""
    return "–" if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """Write a share in percent."""
    return "–" if value is None else f"{value:.2%}".replace("%", " %")


def ablated() -> Iterator[str]:
    """Yield the rows of the small sets: what was found with each step of Confusion Training turned off."""
    path = HERE / "results" / "ablate.json"
    results: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    yield (
        "| set, seed, clean set, variant | poison | TPR | AUROC | clean flagged | cover flagged | time "
        "| processor time | commit |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, row in results.items():
        auroc = "–" if row["auroc"] is None else f"{row['auroc']:.4f}"
        yield (
            f"| {name} | {row['poison']} | {share(row['tpr'])} | {auroc} | {row['natural_flagged']} of {row['n']:,} "
            f"| {row['cover_flagged']} | {row['seconds']:.0f} s | {row['cpu_seconds']:.0f} s "
            f"| {row['commit']} |"
        )


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "ablate": ablated,
    "guard": partial(guarding, "guard.json"),
    "guard before": partial(guarding, "guard-before.json"),
    "false alarms": false_alarms,
}
"""Each stands in docs/results.md between two comments with its name."""


def main() -> None:
    """Print the tables, or put them into the page."""
    text = PAGE.read_text()
    for name, lines in TABLES.items():
        table = "\n".join(lines())
        print(table, end="\n\n")
        opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
        text = re.sub(
            re.escape(opening) + ".*?" + re.escape(closing), f"{opening}\n{table}\n{closing}", text, flags=re.DOTALL
        )
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
