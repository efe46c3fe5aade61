"""The results as one self-contained HTML page."""

from __future__ import annotations

from foretaste.bench.results import Results, report_link
from foretaste.bench.tables import heading, provenance, section_title, written
from foretaste.report.template import render


def page(results: Results) -> str:
    """Return the page; its links lead to the cells' own reports, beside it.

    Whatever comes from specifications, data and methods is escaped. The page runs no script and loads nothing.
    """
    return render(
        "bench.html.j2",
        results=results,
        provenance=provenance(results),
        section_title=section_title,
        heading=heading,
        written=written,
        report_link=report_link,
        by_method=lambda trial: {(row.name, row.oracle): row for row in trial.rows},
    )
