"""The results as text: Markdown, LaTeX, and CSV with a line for each cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from foretaste.bench.doors import Column, percent
from foretaste.bench.results import Figure, Results, Row, Section

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        "×": r"$\times$",
    }
)
UNITS = {"share": "%", "seconds": "s", "milliseconds": "ms", "number": ""}


def number(column: Column, value: float) -> str:
    """Write a value in the unit of its column."""
    return percent(value) if column.unit == "share" else f"{value:.{decimals(value)}f}"


def decimals(value: float) -> int:
    """Return how many decimals give about three digits."""
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def written(column: Column, figure: Figure | None) -> str:
    """Write mean ± deviation."""
    if figure is None:
        return "–"
    text = number(column, figure.mean)
    if figure.deviation is None:
        return text
    scale = 100 if column.unit == "share" else 1
    places = max(len(text.partition(".")[2]), 1 if column.unit == "share" else 0)
    return f"{text} ± {scale * figure.deviation:.{places}f}"


def heading(column: Column) -> str:
    """Return a column's title with its unit."""
    unit = UNITS[column.unit]
    return f"{column.title}, {unit}" if unit else column.title


def method_name(row: Row) -> str:
    """Name a row: the method, whether it is an oracle, and the letters of its commits."""
    return row.name + (" (oracle)" if row.oracle else "") + (f" [{row.marks}]" if row.marks else "")


def provenance(results: Results) -> list[str]:
    """Say what the figures are of, a sentence each."""
    several = len(results.commits) > 1
    named = [f"[{letter}] {commit}" if several else commit for letter, commit in results.commits.items()]
    sentences = [
        f"Specification {results.specification}; commit{'s' if several else ''} {', '.join(named) or 'unknown'}.",
        f"Measured on: {'; '.join(results.machines) or 'nothing yet'}.",
        "Mean ± standard deviation over the seeds; the best of each table is bold. Oracles, which are told the "
        "true poison rate, do not compete.",
    ]
    if results.missing:
        sentences.append(f"{len(results.missing)} of {len(results.missing) + len(results.records)} cells are missing.")
    return sentences


def section_title(section: Section) -> str:
    """Name a table."""
    return f"{section.door.title}: {section.data}, {section.network}"


def markdown(results: Results) -> str:
    """Return the results as Markdown tables, one for each door, data set and network."""

    def line(parts: Sequence[str]) -> str:
        return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"

    lines = [f"# {results.title or 'Benchmark'}", ""]
    for section in results.sections:
        head = ["attack", "method", *(heading(column) for column in section.columns)]
        lines += [f"## {section_title(section)}", "", line(head), line(["---"] * 2 + ["--:"] * len(section.columns))]
        for trial in section.trials:
            for row in trial.rows:
                figures = []
                for column in section.columns:
                    figure = row.figures.get(column.key)
                    text = written(column, figure)
                    figures.append(f"**{text}**" if figure is not None and figure.best else text)
                name = method_name(row)
                lines.append(line([trial.name, f"*{name}*" if row.oracle else name, *figures]))
        lines.append("")
    lines += [*provenance(results), ""]
    if results.failures:
        lines += ["Cells that failed:", ""]
        lines += [f"- {record.cell.title()}: {record.failed}" for record in results.failures] + [""]
    return "\n".join(lines)


def latex(results: Results) -> str:
    """Return the results as LaTeX tables, which need the packages booktabs and xcolor."""
    parts = ["% Needs \\usepackage{booktabs} and \\usepackage{xcolor}."]
    parts += [f"% {sentence}" for sentence in provenance(results)]
    for section in results.sections:
        head = ["attack", "method", *(heading(column) for column in section.columns)]
        lines = [
            r"\begin{table}",
            rf"\caption{{{section_title(section).translate(LATEX)}. {provenance(results)[0].translate(LATEX)}}}",
            rf"\begin{{tabular}}{{ll{'r' * len(section.columns)}}}",
            r"\toprule",
            " & ".join(one.translate(LATEX) for one in head) + r" \\",
        ]
        for trial in section.trials:
            lines.append(r"\midrule")
            for place, row in enumerate(trial.rows):
                figures = []
                for column in section.columns:
                    figure = row.figures.get(column.key)
                    text = written(column, figure).translate(LATEX)
                    figures.append(rf"\textbf{{{text}}}" if figure is not None and figure.best else text)
                parts_ = [
                    trial.name.translate(LATEX) if place == 0 else "",
                    method_name(row).translate(LATEX),
                    *figures,
                ]
                lines.append(
                    " & ".join(rf"\textcolor{{gray}}{{{p}}}" if row.oracle and p else p for p in parts_) + r" \\"
                )
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def comma_separated(results: Results) -> str:
    """Return a line for each cell that was measured or failed, with all of its figures unrounded."""
    columns = list(dict.fromkeys(column.key for section in results.sections for column in section.door.columns))
    head = ["door", "data", "n_samples", "imperfections", "attack", "rate", "n_poison", "network", "method", "oracle"]
    head += ["seed", *columns, "failed", "commits", "specification", "cell", "machine", "created"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for record in results.records:
        cell = record.cell
        attack = "" if cell.attack is None else cell.attack.label
        rate = "" if cell.rate is None else cell.rate
        oracle = "yes" if cell.oracle else "no"
        figures = ["" if (value := record.figures.get(key)) is None else value for key in columns]
        writer.writerow(
            [
                *(cell.door, cell.data.title, record.n_samples, cell.imperfections.label, attack, rate),
                *(record.n_poison, cell.network.label, cell.defence.label, oracle, cell.seed, *figures),
                *(record.failed or "", " ".join(record.commits), record.specification, cell.key),
                *(record.machine, record.created),
            ]
        )
    return buffer.getvalue()
