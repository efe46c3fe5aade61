"""Print the README's table of results from the files in ``benchmarks/results``, or write it there with ``--write``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
MARKS = "<!-- results -->", "<!-- /results -->"
DATA = {"gtsrb": "GTSRB, 25,087 images", "cifar10": "CIFAR-10 (JPEG), 50,000 images"}
ATTACKS = {
    ("gtsrb", "badnets"): "BadNets 1 %",
    ("gtsrb", "blend"): "Blend 1 %",
    ("gtsrb", "badnets-all-to-all"): "all-to-all BadNets 5 %",
    ("cifar10", "badnets"): "BadNets 0.3 %",
    ("cifar10", "blend"): "Blend 0.3 %",
}


def table() -> str:
    """Return the table in Markdown: one row per data set, attack and size of the clean set, worst case over seeds."""
    lines = [
        "| data | attack | clean set | seeds | TPR (worst) | FPR (worst) | AUROC (worst) | time | memory "
        "| attack success before → after | accuracy before → after |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows(),
    ]
    return "\n".join(lines)


def rows() -> Iterator[str]:
    """Yield the rows."""
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


def main() -> None:
    """Print the table, or put it into the README."""
    if sys.argv[1:] == ["--write"]:
        text = README.read_text()
        between = re.escape(MARKS[0]) + ".*?" + re.escape(MARKS[1])
        README.write_text(re.sub(between, f"{MARKS[0]}\n{table()}\n{MARKS[1]}", text, flags=re.DOTALL))
    else:
        print(table())


if __name__ == "__main__":
    main()
