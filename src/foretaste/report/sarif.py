"""What a run found as a SARIF 2.1.0 log, the form in which code-scanning services and editors take findings.

The standard: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0 with Errata 01, 2023.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from glob import glob
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from foretaste import __version__
from foretaste.cleansers.verdict import Verdict
from foretaste.guards.finding import Conclusion
from foretaste.guards.neo.registry import Registry
from foretaste.guards.scan import Scan
from foretaste.inspectors.diagnosis import Diagnosis
from foretaste.io import Skipped
from foretaste.report.inspect_page import backdoor
from foretaste.report.summary import name_of, plain
from foretaste.report.triggers import find_triggers
from foretaste.report.wording import class_name, plural, share
from foretaste.samples import Samples
from foretaste.sanitising import printable, public_address

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
TOOL = "foretaste"
BASE = "%SRCROOT%"
"""What relative addresses start from: the working directory of the run."""
MOST_LOCATIONS = 1000
"""Samples that one result lists, at most; code-scanning services refuse results with more."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A kind of finding.

    Attributes:
        id: its stable name.
        level: "error", "warning" or "note".
        severity: how bad it is, from 0 to 10, as code-scanning services sort findings.
        short: what was found, in a few words.
        full: what it means, in a sentence.
        help: what to do about it.
    """

    id: str
    level: str
    severity: float
    short: str
    full: str
    help: str


class Kind(Enum):
    """The kinds of findings."""

    POISONED_CLASS = Rule(
        id="poisoned-class",
        level="error",
        severity=8.0,
        short="Poison in the training set",
        full="Samples of this class look as if they had been planted to give a model a backdoor.",
        help="Look at the samples in report.html and quarantine.parquet, and train on cleansed.parquet.",
    )
    TRIGGER = Rule(
        id="trigger",
        level="error",
        severity=9.0,
        short="A trigger that turns the model's answers",
        full="A pattern changes the model's answer to clean images that it is put into: the model has a backdoor.",
        help="Do not act on the model's answers to images with the trigger. Repair the model or train it anew, without "
        "the samples that carry the trigger.",
    )
    BACKDOORED_CLASS = Rule(
        id="backdoored-class",
        level="error",
        severity=9.0,
        short="A backdoor in the model",
        full="The model looks as if a trigger forced this class.",
        help="Look at the evidence in report.html. Repair the model with foretaste repair, or train it anew on a "
        "cleansed set.",
    )
    SUSPICIOUS_INPUTS = Rule(
        id="suspicious-inputs",
        level="warning",
        severity=5.0,
        short="More suspicious inputs than false alarms explain",
        full="More inputs are flagged than the false-alarm rate explains, and no trigger was confirmed in them.",
        help="Look at the flagged inputs in report.html, and check that they come from where the clean set does.",
    )
    LABEL_SHIFT = Rule(
        id="label-shift",
        level="note",
        severity=3.0,
        short="A label is answered more often than to clean images",
        full="The share of one label has grown, and no trigger explains it.",
        help="The inputs may be another mix of classes than the clean set, or carry a trigger that the method cannot "
        "see.",
    )


def cleanse_log(
    samples: Samples,
    verdict: Verdict,
    *,
    source: str,
    registry: Registry | None = None,
    skipped: Sequence[Skipped] = (),
) -> dict[str, Any]:
    """Return the SARIF log of a cleansing: a result for each class with poison, and for each trigger.

    Args:
        samples: the N inspected samples.
        verdict: what the cleanser said of them.
        source: where the samples came from, as the user named it.
        registry: the triggers that were reconstructed from what was flagged, None if nobody tried.
        skipped: what of the source could not be read.
    """
    source = public_address(source)
    results = []
    evidence = {one.label: one for one in verdict.classes}
    for label in sorted({*verdict.suspect_classes, *samples.labels[verdict.flagged].tolist()}):
        mine = samples.labels == label
        rows = np.flatnonzero(mine & verdict.flagged)
        name = class_name(label, samples.classes)
        text = f"Flagged as poison: {len(rows):,} of {plural(int(mine.sum()), 'sample')} of {name}."
        facts: dict[str, object] = {"class": samples.classes[label], "n_flagged": len(rows)}
        facts["n_samples"] = int(mine.sum())
        if label in evidence:
            text += f" {_sentence(evidence[label].reason)}"
            facts |= {"statistic": evidence[label].statistic, "threshold": evidence[label].threshold}
        places = _locations(source, samples.ids[rows].tolist())
        results.append(_result(Kind.POISONED_CLASS, text, places, (source, samples.classes[label]), facts))
    if registry is not None:
        flagged = samples[verdict.flagged]
        for trigger, carriers in find_triggers(registry, flagged):
            does = _forces(trigger.target, trigger.flip_rate, trigger.n_confirmed, samples.classes)
            text = f"A trigger {does}; {plural(len(carriers), 'flagged sample carries', 'flagged samples carry')} it."
            places = _locations(source, flagged.ids[carriers].tolist())
            facts = {"trigger": trigger.id, "box": list(trigger.box), "n_found": len(carriers)}
            results.append(_result(Kind.TRIGGER, text, places, (source, trigger.id), facts))
    return _log("cleanse", source, verdict.method, verdict.seed, results, verdict.notes, skipped)


def scan_log(scan: Scan, *, source: str, model: str, skipped: Sequence[Skipped] = ()) -> dict[str, Any]:
    """Return the SARIF log of a scan: a result for each trigger in the inputs, and for what no trigger explains.

    Args:
        scan: what was found.
        source: where the inputs came from, as the user named it.
        model: the classifier, as the user named it.
        skipped: what of the inputs could not be read.
    """
    source, model = public_address(source), public_address(model)
    screening, finding, ids = scan.screening, scan.finding, scan.samples.ids
    classifier = _locations(model)
    results = []
    for trigger in scan.registry or ():
        carriers = np.flatnonzero(screening.trojaned & (screening.trigger_ids == trigger.id))
        if not len(carriers):
            continue
        does = _forces(trigger.target, trigger.flip_rate, trigger.n_confirmed, scan.classes)
        text = f"A trigger {does}; {plural(len(carriers), 'input carries', 'inputs carry')} it."
        places = _locations(source, ids[carriers].tolist())
        facts: dict[str, object] = {"trigger": trigger.id, "box": list(trigger.box), "n_found": len(carriers)}
        results.append(_result(Kind.TRIGGER, text, places, (source, trigger.id), facts, classifier))
    if finding.conclusion is Conclusion.EXCESS:
        flagged = np.flatnonzero(screening.trojaned)
        text = (
            f"Flagged: {len(flagged):,} of {plural(len(screening), 'input')}, where {finding.n_expected:.1f} false "
            f"alarms are expected (p = {finding.p_value:.2g})."
        )
        facts = {"n_flagged": len(flagged), "n_samples": len(screening), "p_value": finding.p_value}
        places = _locations(source, ids[flagged].tolist())
        results.append(_result(Kind.SUSPICIOUS_INPUTS, text, places, (source,), facts, classifier))
    if finding.shift is not None:
        name = name_of(finding.shift.label, scan.classes)
        text = (
            f"The model answers {name} to {share(finding.shift.share)} of the inputs and to "
            f"{share(finding.shift.clean_share)} of the clean images (p = {finding.shift.p_value:.2g})."
        )
        facts = {"class": name, "n_found": finding.shift.n_inputs, "p_value": finding.shift.p_value}
        results.append(_result(Kind.LABEL_SHIFT, text, _locations(source), (source, name), facts, classifier))
    return _log("guard scan", source, scan.method, scan.seed, results, scan.notes, skipped)


def inspect_log(
    diagnosis: Diagnosis,
    *,
    model: str,
    classes: Sequence[str],
    notes: Sequence[str] = (),
    skipped: Sequence[Skipped] = (),
) -> dict[str, Any]:
    """Return the SARIF log of an inspection: a result for each backdoored class, and for each trigger.

    Args:
        diagnosis: what was found.
        model: the model, as the user named it.
        classes: the names of the labels that the model gives.
        notes: sentences that a reader should know, beside those of the diagnosis.
        skipped: what of the clean images could not be read.
    """
    model = public_address(model)
    results, places = [], _locations(model)
    for entry in diagnosis.evidence:
        if entry.suspect:
            name = backdoor(entry.target, entry.source, classes)
            text = f"The model has a backdoor to {name} (p = {entry.p_value:.2g}). {_sentence(entry.reason)}"
            facts: dict[str, object] = {"backdoor": name, "p_value": entry.p_value, "statistic": entry.statistic}
            results.append(_result(Kind.BACKDOORED_CLASS, text, places, (model, name), facts))
    for found in diagnosis.reconstructions:
        name = backdoor(found.target, found.source, classes)
        text = (
            f"A trigger ({found.kind}) turns {share(found.flip_rate)} of "
            f"{plural(found.n_confirmed, 'clean image')} to {name}."
        )
        facts = {"backdoor": name, "kind": found.kind, "flip_rate": found.flip_rate}
        results.append(_result(Kind.TRIGGER, text, places, (model, name, found.kind), facts))
    return _log("inspect", model, diagnosis.method, diagnosis.seed, results, (*notes, *diagnosis.notes), skipped)


def is_own(log: object) -> bool:
    """Return whether parsed JSON is a SARIF log that foretaste wrote."""
    try:
        return bool(log["runs"][0]["tool"]["driver"]["name"] == TOOL)  # type: ignore[index]
    except (LookupError, TypeError):
        return False


def _log(
    command: str,
    source: str,
    method: str,
    seed: int,
    results: Sequence[dict[str, Any]],
    notes: Iterable[str],
    skipped: Sequence[Skipped],
) -> dict[str, Any]:
    """Wrap results as the one run of a log; notes and what was left out become notifications."""
    left_out = [f"{one.name} was left out: it {one.reason}." for one in skipped[:MOST_LOCATIONS]]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": TOOL,
                        "version": __version__,
                        "semanticVersion": __version__,
                        "rules": [_rule(kind.value) for kind in Kind],
                    }
                },
                # Services keep the findings of each analysis apart by this.
                "automationDetails": {"id": f"{TOOL}/{command.replace(' ', '-')}/{source}/"},
                "originalUriBaseIds": {BASE: {"description": {"text": "The working directory of the run."}}},
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "toolExecutionNotifications": [
                            *({"level": "note", "message": _message(_sentence(note))} for note in notes),
                            *({"level": "warning", "message": _message(line)} for line in left_out),
                        ],
                    }
                ],
                "results": list(results),
                "properties": {"method": method, "seed": seed},
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.id.split("-")),
        "shortDescription": {"text": rule.short},
        "fullDescription": {"text": rule.full},
        "help": {"text": rule.help},
        "defaultConfiguration": {"level": rule.level},
        "properties": {"tags": ["security"], "security-severity": f"{rule.severity:.1f}"},
    }


def _result(
    kind: Kind,
    text: str,
    locations: list[dict[str, Any]],
    identity: Sequence[str],
    facts: dict[str, object],
    related: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return one finding.

    Args:
        kind: which kind it is.
        text: the finding for people.
        locations: where it is.
        identity: what makes it the same finding in a later run, with the kind.
        facts: the figures behind it.
        related: where else to look.
    """
    rule = kind.value
    digest = hashlib.sha256("\n".join([rule.id, *identity]).encode("utf-8", "backslashreplace")).hexdigest()
    return {
        "ruleId": rule.id,
        "ruleIndex": list(Kind).index(kind),
        "level": rule.level,
        "message": _message(text),
        "locations": locations,
        **({"relatedLocations": list(related)} if related else {}),
        # Of all names GitHub only heeds this one; what it would make of the first line is the same for all findings.
        "partialFingerprints": {"primaryLocationLineHash": f"{digest[:16]}:1"},
        "properties": {name: plain(value) for name, value in facts.items()},
    }


def _message(text: str) -> dict[str, str]:
    """Return a message that shows the text as it is: names of data could else be placeholders or links."""
    return {"text": printable(text).replace("](", "] (").replace("{", "{{").replace("}", "}}")}


def _sentence(text: str) -> str:
    """Return the text with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def _forces(target: int | None, flip_rate: float, n_confirmed: int, classes: Sequence[str]) -> str:
    """Say what a trigger does."""
    to = "another label" if target is None else class_name(target, classes)
    return f"turns {share(flip_rate)} of {plural(n_confirmed, 'clean image')} to {to}"


def _locations(source: str, ids: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Say where samples are: the file of each in a folder of images, or else the file with them, and their ids.

    A source that is neither file nor address (a named set, a Python function) is a logical location.
    """
    samples: list[dict[str, str] | None] = [{"name": name, "kind": "sample"} for name in ids[:MOST_LOCATIONS]]
    samples = samples or [None]
    path = Path(source)
    if "://" in source:
        return [_location({"uri": source}, sample) for sample in samples]
    if path.is_dir() and (files := _files(path, ids[:MOST_LOCATIONS])):
        return [_location(_artifact(file), sample) for file, sample in zip(files, samples, strict=True)]
    if path.exists():
        return [_location(_artifact(path), sample) for sample in samples]
    if matches := sorted(glob(source)):  # noqa: PTH207, as io reads it
        # Which of the files holds which sample is not known.
        return [_location(_artifact(Path(name))) for name in matches[:MOST_LOCATIONS]]
    named = {"fullyQualifiedName": source, "kind": "resource"}
    return [{"logicalLocations": [named] if sample is None else [named, sample]} for sample in samples]


def _files(folder: Path, ids: Sequence[str]) -> list[Path]:
    """Return the image files that the ids name; none if they do not name files of the folder."""
    files = [Path(os.path.normpath(folder / name)) for name in ids]
    inside = Path(os.path.normpath(folder))
    return files if all(file.is_relative_to(inside) and file.is_file() for file in files) else []


def _location(artifact: dict[str, str], sample: dict[str, str] | None = None) -> dict[str, Any]:
    # Services take no location without a line, though images and tables have none.
    place: dict[str, Any] = {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": 1}}}
    return place | ({} if sample is None else {"logicalLocations": [sample]})


def _artifact(path: Path) -> dict[str, str]:
    """Return a file's address, relative to the working directory if it lies below."""
    absolute = Path(os.path.normpath(path.absolute()))
    end = "/" if path.is_dir() else ""
    if absolute.is_relative_to(Path.cwd()):
        relative = absolute.relative_to(Path.cwd()).as_posix()
        return {"uri": quote(os.fsencode(relative)) + end, "uriBaseId": BASE}
    return {"uri": absolute.as_uri() + end}
