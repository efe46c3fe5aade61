"""Print the tables of docs/results.md from the files in ``benchmarks/results``; ``--write`` puts them there."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from scipy.stats import binomtest

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
TITLES = {
    "gtsrb": "GTSRB",
    "cifar10": "CIFAR-10 (JPEG)",
    "signs": "signs",
    "orl": "ORL faces",
    "fmnist": "Fashion-MNIST",
    "digits": "digits on black",
}
DATA = "gtsrb", "cifar10", "fmnist", "signs"
"""The data sets that Confusion Training is measured on, in the order of the tables."""


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
    order = list(TITLES)
    for (data, backdoor), cases in sorted(groups.items(), key=lambda group: order.index(group[0][0])):
        streams = [stream for case in cases for stream in case["streams"].values()]
        before, after = (mean(stream[f"attack_success_{when}"] for stream in streams) for when in ("before", "after"))
        first, calm = ([case[f"first_search_{kind}"] for case in cases] for kind in ("trojaned", "clean"))
        yield (
            f"| {TITLES[data]} | {backdoor} | {len(cases)} | {share(before)} → {share(after)} "
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


def measured(file: str = "ablate.json") -> list[dict[str, Any]]:
    """Return what ``ablate.py`` measured."""
    return list(json.loads((HERE / "results" / file).read_text())["cases"].values())


def grouped(cases: Iterable[dict[str, Any]], *by: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return the cases by the values of some of their fields, in the order of their first."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for case in cases:
        groups.setdefault(tuple(case[field] for field in by), []).append(case)
    return groups


def found(file: str) -> Iterator[str]:
    """Yield the table of what Confusion Training finds: one line per data set, attack and clean set, over seeds."""
    yield (
        "| data | attack | images, poison | clean set | seeds | TPR (worst) | AUROC | clean flagged | cover flagged "
        "| processor time |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    cases = [case for case in measured(file) if case["variant"] == "default" and case["poison"]]
    for (cell, one_in, clean), rows in sorted(grouped(cases, "cell", "one_in", "clean").items(), key=found_order):
        data, attack = cell.split("-", 1)
        rates = [row["tpr"] for row in rows]
        worst = f" ({share(min(rates))})" if len(rows) > 1 else ""
        yield (
            f"| {part(data, one_in)} | {attack} | {rows[0]['n']:,}, {rows[0]['poison']:,} | {500 if clean else 'none'} "
            f"| {len(rows)} | {share(mean(rates))}{worst} | {min(row['auroc'] for row in rows):.4f} "
            f"| {sum(row['natural_flagged'] for row in rows)} "
            f"| {sum(row['cover_flagged'] for row in rows) if rows[0]['cover'] else '–'} "
            f"| {mean(row['cpu_seconds'] for row in rows):.0f} s |"
        )


def found_order(group: tuple[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    """Return what the lines are sorted by: whole sets first, with a clean set first."""
    cell, one_in, clean = group[0]
    data, attack = cell.split("-", 1)
    return DATA.index(data), one_in, not clean, attack


def part(data: str, one_in: int) -> str:
    """Name a data set, or the part of it that is taken."""
    name = TITLES[data]
    return name if one_in == 1 else f"{name}, one in {one_in if data != 'signs' else max(one_in // 4, 1)}"


def quiet() -> Iterator[str]:
    """Yield the table of sets without poison: how many runs condemn a class, by what is odd about the set."""
    yield "| set | clean set | runs | runs that condemn a class | 95 % interval | nearest | images flagged | data |"
    yield "|---|---|---|---|---|---|---|---|"
    cases = [case for case in measured() if case["variant"] == "default" and not case["poison"]]
    for case in cases:
        case["data"], case["kind"] = case["cell"].split("-", 1)
    # What carries a benign mark under right labels cannot be told from clean-label poison: it is shown, not counted.
    promised = [case for case in cases if case["kind"] != "benign-mark"]
    groups = [
        (kind, "500" if clean else "none", rows)
        for (kind, clean), rows in sorted(grouped(cases, "kind", "clean").items())
    ]
    groups += [("", "500" if clean else "none", rows) for (clean,), rows in sorted(grouped(promised, "clean").items())]
    groups.append(("", "with or without", promised))
    for kind, clean_set, rows in groups:
        condemned = sum(bool(row["condemned"]) for row in rows)
        low, high = binomtest(condemned, len(rows)).proportion_ci(method="exact")
        data = ", ".join(sorted({part(row["data"], row["one_in"]) for row in rows}))
        yield (
            f"| {kind or '**all but benign-mark**'} | {clean_set} | {len(rows)} "
            f"| {condemned} | {share(low)} to {share(high)} | {max(row['margin'] for row in rows):.1f} "
            f"| {sum(row['natural_flagged'] for row in rows)} of {sum(row['n'] for row in rows):,} | {data} |"
        )


def ablation() -> Iterator[str]:
    """Yield the table of what each step buys: TPR and clean images flagged with it turned off, and processor time."""
    cases = measured()
    if all(case["variant"] == "default" for case in cases):
        yield "Not measured with this version."
        return
    varied = {(case["cell"], case["one_in"], case["seed"]) for case in cases if case["variant"] != "default"}
    cases = [case for case in cases if (case["cell"], case["one_in"], case["seed"]) in varied and case["clean"]]
    columns = sorted(grouped(cases, "cell", "one_in"), key=lambda column: found_order(((*column, True), None)))
    names = [f"{part(cell.split('-', 1)[0], one_in)}: {cell.split('-', 1)[1]}" for cell, one_in in columns]
    yield f"| turned off | {' | '.join(names)} | processor time |"
    yield "|---" * (len(names) + 2) + "|"
    base = {(case["cell"], case["one_in"], case["seed"]): case for case in cases if case["variant"] == "default"}
    for (variant,), rows in grouped(sorted(cases, key=lambda case: case["variant"] != "default"), "variant").items():
        entries = []
        for column in columns:
            some = [row for row in rows if (row["cell"], row["one_in"]) == column]
            flagged = sum(row["natural_flagged"] for row in some)
            rates = [row["tpr"] for row in some if row["tpr"] is not None]
            entries.append((f"{share(mean(rates))}, " if rates else "") + f"{flagged}" if some else "–")
        pairs = [(row, base[row["cell"], row["one_in"], row["seed"]]) for row in rows]
        spent = sum(row["cpu_seconds"] for row, _ in pairs) / sum(row["cpu_seconds"] for _, row in pairs)
        yield f"| {'nothing' if variant == 'default' else variant} | {' | '.join(entries)} | {spent:.2f} × |"


def grown() -> Iterator[str]:
    """Yield the table of how the time and the memory of Confusion Training grow with samples and classes."""
    file = HERE / "results" / "growth.json"
    if not file.exists():
        yield "Not measured."
        return
    yield "| samples | classes | TPR | clean flagged | time | processor time, per sample | memory | the set alone |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in json.loads(file.read_text())["sets"].values():
        yield (
            f"| {row['n']:,} | {row['classes']:,} | {share(row['tpr'])} | {row['natural_flagged']} "
            f"| {row['seconds']:,.0f} s | {row['cpu_seconds']:,.0f} s, {1000 * row['cpu_seconds'] / row['n']:.1f} ms "
            f"| {row['peak_anonymous_gb']:.1f} GB | {row['set_gb']:.1f} GB |"
        )


def compared(file: str) -> Iterator[str]:
    """Yield the matrix of the cleansers: TPR and, in brackets, FPR, one line per method, one column per set.

    The mean AUROC, over the attacks, is of the ranking, which a threshold may not do justice to.
    """
    if not (HERE / "results" / file).exists():
        yield "Not measured."
        return
    with (HERE / "results" / file).open(newline="") as lines:
        cases = [case for case in csv.DictReader(lines) if not case["failed"]]
    sets = list(dict.fromkeys(set_of(case) for case in cases))
    ranked = any(case["auroc"] for case in cases)
    yield f"| method | {' | '.join(sets)} |{' mean AUROC |' if ranked else ''} mean time |"
    yield "|---" * (len(sets) + 2 + ranked) + "|"
    for (method, oracle), rows in grouped(cases, "method", "oracle").items():
        by_set = {set_of(row): row for row in rows}
        entries = []
        for name in sets:
            row = by_set.get(name)
            false = "" if row is None else f"({share(float(row['fpr']))})"
            entries.append("–" if row is None else f"{share(float(row['tpr']))} {false}" if row["tpr"] else false)
        if ranked:
            entries.append(number(mean(float(row["auroc"]) for row in rows if row["auroc"]), 3))
        seconds = mean(float(row["seconds"]) for row in rows)
        yield f"| {method}{' (oracle)' if oracle == 'yes' else ''} | {' | '.join(entries)} | {seconds:.0f} s |"


def set_of(case: dict[str, Any]) -> str:
    """Name what was done to a set of the matrix."""
    if not case["attack"]:
        return case["imperfections"] or "none"
    return f"{case['attack']} {float(case['rate']):.0%}".replace("%", " %")


def inspected() -> Iterator[str]:
    """Yield the table of the inspectors: how well each tells backdoored models from clean ones."""
    parts = json.loads((HERE / "results" / "inspectors.json").read_text())["summary"]
    [some, *_] = parts["held out"].values()
    by = [("auroc_by_data", name) for name in some["auroc_by_data"]]
    by += [("auroc_by_backdoor", name) for name in ("patches", "blend", "all-to-all 10 %")]
    yield (
        f"| models | method | backdoored, clean | AUROC | {' | '.join(TITLES.get(name, name) for _, name in by)} "
        "| cross-entropy | Brier | found, target named | false alarms | time | queries |"
    )
    yield "|---" * (len(by) + 10) + "|"
    for part_, methods in parts.items():
        for method, row in methods.items():
            yield (
                f"| {part_} | {method} | {row['n_backdoored']}, {row['n_clean']} | {number(row['auroc'], 2)} "
                f"| {' | '.join(number(row[what][name], 2) for what, name in by)} "
                f"| {number(row['cross_entropy'], 2)} | {number(row['brier'], 2)} "
                f"| {row['true_positives']}, {row['target_named']} | {row['false_positives']} "
                f"| {row['seconds_median']:.0f} s | {row['queries_median']:,} |"
            )


def repaired() -> Iterator[str]:
    """Yield the table of the repairs: accuracy and attack success of each model before and after each."""
    cases = json.loads((HERE / "results" / "repairs.json").read_text())["cases"]
    yield f"| method | {' | '.join(cases)} | mean time |"
    yield "|---" * (len(cases) + 2) + "|"
    yield f"| before | {' | '.join(kept(case['before']) for case in cases.values())} | – |"
    for method in sorted({method for case in cases.values() for method in case["methods"]}):
        rows = [case["methods"].get(method) for case in cases.values()]
        seconds = mean(row["seconds"] for row in rows if row)
        yield f"| {method} | {' | '.join(kept(row) for row in rows)} | {seconds:.0f} s |"


def kept(row: dict[str, Any] | None) -> str:
    """Return accuracy and attack success of a model as text."""
    return f"{share(row['accuracy'])}, {share(row['attack_success'])}" if row else "–"


PAPERS = {"blend": "> 90 %", "wanet": "99 %", "dynamic": "99 %", "refool": "≥ 75 %", "trojan-nn": "≈ 100 %"}
"""What papers report, on their own data, networks and rates."""


def attacks() -> Iterator[str]:
    """Yield the table of how often each attack succeeds, on the small network and at rates that are usual."""
    cases = json.loads((HERE / "results" / "attacks.json").read_text())["cases"]
    settings = [(data, strong) for data in ("gtsrb", "cifar10") for strong in (False, True)]
    titles = [f"{TITLES[data]}{', stronger' if strong else ''}" for data, strong in settings]
    yield f"| attack | {' | '.join(titles)} | in its paper |"
    yield "|---" * (len(titles) + 2) + "|"
    for (attack,), rows in grouped([case for case in cases if case["net"] == "compact-resnet"], "attack").items():
        entries = []
        for setting in settings:
            some = [row for row in rows if (row["data"], row["stronger"]) == setting]
            poison = f"{some[0]['poison']:,}" + (f" + {some[0]['cover']:,}" if some[0]["cover"] else "") if some else ""
            entries.append(f"{poison}: {share(mean(row['attack_success'] for row in some))}" if some else "–")
        yield f"| {attack} | {' | '.join(entries)} | {PAPERS.get(attack, '–')} |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "found": partial(found, "ablate.json"),
    "quiet": quiet,
    "ablation": ablation,
    "rounds": partial(found, "ablate-rounds.json"),
    "growth": grown,
    "compared": partial(compared, "comparison.csv"),
    "compared quiet": partial(compared, "comparison-quiet.csv"),
    "attacks": attacks,
    "inspectors": inspected,
    "repairs": repaired,
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
