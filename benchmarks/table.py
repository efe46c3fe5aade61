"""Print the tables of docs/results.md from the files in ``benchmarks/results``; ``--write`` puts them there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from attacks import CASES

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
DATA = {"gtsrb": "GTSRB, 25,087 images", "cifar10": "CIFAR-10 (JPEG), 50,000 images"}
ATTACKS = {
    ("gtsrb", "badnets"): "BadNets 1 %",
    ("gtsrb", "blend"): "Blend 1 %",
    ("gtsrb", "badnets-all-to-all"): "all-to-all BadNets 5 %",
    ("cifar10", "badnets"): "BadNets 0.3 %",
    ("cifar10", "blend"): "Blend 0.3 %",
}
ATTACKED = {
    "gtsrb": "GTSRB",
    "gtsrb-stronger": "GTSRB, stronger",
    "cifar10": "CIFAR-10 (JPEG)",
    "cifar10-stronger": "CIFAR-10 (JPEG), stronger",
    "cifar10-resnet18": "CIFAR-10 (JPEG), ResNet-18",
    "cifar10-resnet18-stronger": "CIFAR-10 (JPEG), ResNet-18, stronger",
    "malware": "malware features",
    "malware-stronger": "malware features, stronger",
}
REPORTED = {
    ("gtsrb", "wanet"): "99.3 %",
    ("cifar10", "wanet"): "99.6 %",
    ("gtsrb", "dynamic"): "99.8 %",
    ("cifar10", "dynamic"): "99.3 %",
    ("gtsrb", "refool"): "≥ 75 %",
    ("gtsrb", "blend"): "> 90 %",
    ("cifar10", "blend"): "> 90 %",
    ("gtsrb", "trojan-nn"): "≈ 100 %",
    ("cifar10", "trojan-nn"): "≈ 100 %",
}
"""Success rates that the attacks' papers report, at their own rates and on their own networks."""
GUARDED = {"gtsrb": "GTSRB", "cifar10": "CIFAR-10 (JPEG)", "signs": "signs", "orl": "ORL faces"}


def cleansing() -> Iterator[str]:
    """Yield the lines of the table of ``cleanse``: one per data set, attack and clean set, worst case over seeds."""
    yield (
        "| data | attack | clean set | seeds | TPR (worst) | FPR (worst) | AUROC (worst) | time | memory "
        "| attack success before → after | accuracy before → after |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for data, title in DATA.items():
        path = HERE / "results" / f"cleanse-{data}.json"
        groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for key, case in json.loads(path.read_text())["cases"].items():
            name, _, clean = key.partition(" seed ")
            groups.setdefault((name, -int(clean.split()[-1])), []).append(case)
        for (name, clean), cases in groups.items():
            attack = ATTACKS.get((data, name), "none")
            shown = {
                "tpr": share(min((c["tpr"] for c in cases if "tpr" in c), default=None)),
                "fpr": share(max(c.get("fpr", c["n_flagged"] / c["n_samples"]) for c in cases)),
                "auroc": "–" if "auroc" not in cases[0] else f"{min(c['auroc'] for c in cases):.4f}",
                "success": change("attack_success", cases),
                "accuracy": change("accuracy", cases),
            }
            yield (
                f"| {title} | {attack} | {-clean or 'none'} | {len(cases)} | {shown['tpr']} | {shown['fpr']} "
                f"| {shown['auroc']} | {max(c['seconds'] for c in cases):.0f} s "
                f"| {max(c['peak_gb'] for c in cases):.1f} GB | {shown['success']} | {shown['accuracy']} |"
            )


def attacking() -> Iterator[str]:
    """Yield the lines of the table of the attacks, one per data set and attack, means over the seeds."""
    yield (
        "| data | attack | poison, cover | seeds | attack success → retrained | in its paper | accuracy → retrained "
        "| TPR | FPR | cover flagged | AUROC | time |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for data, title in ATTACKED.items():
        path = HERE / "results" / f"attacks-{data}.json"
        groups: dict[str, list[dict[str, Any]]] = {}
        for key, case in (json.loads(path.read_text())["cases"] if path.exists() else {}).items():
            if "attack" in case:
                groups.setdefault(key.partition(" seed ")[0], []).append(case)
        for name in filter(groups.__contains__, CASES[data]):
            cases = groups[name]
            attacks = [case["attack"] for case in cases]
            cleansed = [case["cleanse"] for case in cases if "cleanse" in case]
            # Where nothing was flagged, no model was trained again.
            retrained = [case["attack"] | case["cleanse"] for case in cases if "cleanse" in case]
            success, accuracy = (
                f"{share(average(attacks, what))} → {share(average(retrained, what))}"
                for what in ("attack_success", "accuracy")
            )
            cover = attacks[0]["cover"]
            seeds = f"{len(cases)}" if len(cleansed) == len(cases) else f"{len(cases)}, cleansed {len(cleansed)}"
            # Of a run that was paused no time is kept.
            taken = average(cleansed, "seconds")
            seconds = "–" if taken is None else f"{taken:.0f} s"
            covered = share(mean(one["cover_flagged"] / cover for one in cleansed)) if cover and cleansed else "–"
            yield (
                f"| {title} | {name} | {attacks[0]['poison']}, {cover} | {seeds} | {success} "
                f"| {REPORTED.get((data, name), '–')} | {accuracy} | {share(average(cleansed, 'tpr'))} "
                f"| {share(average(cleansed, 'fpr'))} | {covered} | {number(average(cleansed, 'auroc'), 4)} "
                f"| {seconds} |"
            )


def guarding() -> Iterator[str]:
    """Yield the lines of the table of NEO: one per data set and backdoor, over networks, seeds and streams."""
    yield (
        "| data | backdoor | models | attack success before → after | found | false alarms | answers right | IoU "
        "| questions, first search: trojaned, clean (most) | ms | known trigger: time, questions |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, case in json.loads((HERE / "results" / "guard.json").read_text())["cases"].items():
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
    cases = json.loads((HERE / "results" / "guard.json").read_text())["cases"].values()
    rates = [case["streams"]["1%"]["false_alarms"] for case in cases]
    margin = 1.96 * stdev(rates) / len(rates) ** 0.5
    yield (
        f"Over all {len(rates)} models the guard, asked for 1 %, called {share(mean(rates))} of the clean inputs "
        f"trojaned (95 % interval of the mean: {share(mean(rates) - margin)} to {share(mean(rates) + margin)})."
    )


def known(cases: list[dict[str, Any]], what: str) -> list[float]:
    """Return a figure of the cases that have it."""
    return [case[what] for case in cases if case[what] is not None]


def average(cases: list[dict[str, Any]], what: str) -> float | None:
    """Return the mean of a figure over the cases that have it; None if none has."""
    values = known(cases, what)
    return mean(values) if values else None


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


def change(what: str, cases: list[dict[str, Any]]) -> str:
    """Return the mean before and after, over the seeds that were retrained."""
    some = [case for case in cases if f"{what}_before" in case]
    if not some:
        return "–"
    before, after = (mean(case[f"{what}_{when}"] for case in some) for when in ("before", "after"))
    return f"{share(before)} → {share(after)}" + ("" if len(some) == len(cases) else f" ({len(some)} seed)")


def share(value: float | None) -> str:
    """Write a share in percent."""
    return "–" if value is None else f"{value:.2%}".replace("%", " %")


def ablated() -> Iterator[str]:
    """Yield the rows of the small sets: what was found with each step of Confusion Training turned off."""
    path = HERE / "results" / "ablate.json"
    results: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    yield "| set, seed, clean set, variant | poison | TPR | AUROC | clean flagged | cover flagged | time | commit |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, row in results.items():
        auroc = "–" if row["auroc"] is None else f"{row['auroc']:.4f}"
        yield (
            f"| {name} | {row['poison']} | {share(row['tpr'])} | {auroc} | {row['natural_flagged']} of {row['n']:,} "
            f"| {row['cover_flagged']} | {row['seconds']:.0f} s | {row['commit']} |"
        )


TABLES = {
    "ablate": ablated,
    "cleanse": cleansing,
    "attacks": attacking,
    "guard": guarding,
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
