"""One self-contained HTML page out of a repair: what it did, what it cost, and whether the backdoor is gone."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from foretaste.report.template import render

GONE = 0.1
"""Attack success up to which a backdoor counts as taken out: what the literature asks of a repair."""

CAUTIONS = {
    "fine-tuning": "What clean samples do not touch stays: a backdoor may survive, or come back with further training.",
    "fine-pruning": "A backdoor that shares its features with clean samples is not silent on them, and is not cut off.",
    "neural-cleanse": "It unlearns the trigger that it inverts. One that is not a small patch is not inverted.",
    "nad": "The teacher is a fine-tuned model: what fine-tuning leaves in it, it may teach.",
    "anp": "It takes threshold and trade-off from its paper; a model that loses accuracy wants a lower threshold.",
    "i-bau": "It unlearns what a faint pattern over the whole image can do; a small, strong patch is not that.",
    "abl": "It takes what is learnt first for poison: a backdoor that is learnt late is not isolated.",
    "retrain": "It is as good as the verdict on the training set: look at it with foretaste cleanse.",
}
"""What each method may leave, by its name."""


def repair_page(summary: Mapping[str, Any]) -> str:
    """Return the HTML report of a repair, with all names in it escaped; it runs no script and loads nothing.

    Args:
        summary: what ``summary.json`` holds.
    """
    run = {"method": summary["method"], "seed": summary["seed"], "foretaste": summary["version"]}
    after = summary.get("asr_after")
    return render(
        "repair.html.j2",
        summary=summary,
        created=datetime.datetime.fromisoformat(summary["created"]),
        known="asr_after" in summary,
        gone=after is not None and after <= GONE,
        caution=CAUTIONS.get(summary["method"]),
        facts={
            name: ", ".join(value) if isinstance(value, list) else value for name, value in summary["facts"].items()
        },
        run=run | summary["versions"],
    )
