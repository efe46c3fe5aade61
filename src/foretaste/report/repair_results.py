"""What a repair leaves behind, each file written to a temporary name and renamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretaste.classifiers.onnx_module import OnnxModule
from foretaste.errors import UsageError
from foretaste.guards.neo import Registry
from foretaste.io import Skipped, atomic_json, atomic_text
from foretaste.nets import Net
from foretaste.nets.export import export_onnx, save
from foretaste.repairs import Repaired
from foretaste.repairs.tuning import logits_of
from foretaste.report.repair_page import repair_page
from foretaste.report.summary import about, describe, plain
from foretaste.samples import Mask, Samples
from foretaste.sanitising import public_address

FILES = ("model.safetensors", "model.onnx", "report.html", "summary.json")
SCHEMA = "urn:foretaste:repair-summary:1"
"""The schema of ``summary.json``, in ``docs/schemas``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """How models are compared before and after.

    Attributes:
        test: samples under their true labels.
        what: what they are, for people ("test set").
        trojaned: ``bool (N,)``, which of them carry a trigger; None if that is not known.
        registry: triggers to paste into the samples, None for none.
    """

    test: Samples
    what: str
    trojaned: Mask | None = None
    registry: Registry | None = None

    def check(self, shape: tuple[int, ...] | None) -> None:
        """Refuse what models that take inputs of this shape, ``(H, W, C)``, cannot be compared on; None is any.

        Raises:
            UsageError: the samples have another shape, or a trigger does not fit on them.
        """
        mine = self.test.sample_shape
        if shape is not None and mine != shape:
            raise UsageError(f"the {self.what}'s samples have shape {mine}, and the model takes {shape}")
        for trigger in self.registry or ():
            _, _, bottom, right = trigger.box
            if len(mine) != 3 or bottom > mine[0] or right > mine[1] or trigger.patch.shape[2] != mine[2]:
                raise UsageError(f"the trigger {trigger.id} of the registry does not fit on samples of shape {mine}")

    def compare(self, before: Any, after: Any) -> dict[str, Any]:
        """Return accuracy and, where triggers are known, attack success of two models.

        On trojaned inputs the attack succeeds with any wrong label of the model before, because from outside nobody can
        tell it from a mistake, and after as long as that label still stands; as ``guard scan`` counts it.
        """
        labels = self.test.labels
        first, second = (logits_of(net, self.test).argmax(axis=1) for net in (before, after))
        clean = np.ones(len(labels), dtype=np.bool_) if self.trojaned is None else ~self.trojaned
        figures: dict[str, Any] = {
            "tested_on": self.what,
            "n_test": int(clean.sum()),
            "accuracy_before": mean(first[clean] == labels[clean]),
            "accuracy_after": mean(second[clean] == labels[clean]),
        }
        if self.trojaned is not None:
            fooled = first != labels
            figures |= {
                "n_trojaned": int(self.trojaned.sum()),
                "asr_before": mean(fooled[self.trojaned]),
                "asr_after": mean((fooled & (second == first))[self.trojaned]),
            }
        if self.registry is not None:
            figures["triggers"] = [self.pasted(trigger, before, after) for trigger in self.registry]
            if figures["triggers"] and self.trojaned is None:
                figures |= {
                    name: mean(np.array([row[name] for row in figures["triggers"] if row[name] is not None]))
                    for name in ("asr_before", "asr_after")
                }
        return figures

    def pasted(self, trigger: Any, before: Any, after: Any) -> dict[str, Any]:
        """Return what a trigger is, and its success on the samples that it is pasted into."""
        rows = np.flatnonzero(self.test.labels != trigger.target)
        if not len(rows):  # all are what the trigger forces anyway
            return describe(trigger, 0, self.test.classes) | {"asr_before": None, "asr_after": None}
        some = self.test[rows]
        images = np.array(some.inputs)
        top, left, bottom, right = trigger.box
        images[:, top:bottom, left:right][:, trigger.mask] = trigger.patch[trigger.mask]
        stamped = Samples(some.labels, some.classes, some.ids, images=images)
        plain_answers = logits_of(before, some).argmax(axis=1)
        rates = []
        for net in (before, after):
            answers = logits_of(net, stamped).argmax(axis=1)
            turned = answers != plain_answers if trigger.target is None else answers == trigger.target
            rates.append(mean(turned))
        return describe(trigger, 0, self.test.classes) | {"asr_before": rates[0], "asr_after": rates[1]}


def mean(values: Any) -> float | None:
    """Return the mean of an array, of a mask the share that is true; None of nothing."""
    return float(values.mean()) if values.size else None


def save_repair(
    out: Path,
    before: Net | OnnxModule,
    repaired: Repaired,
    trial: Trial,
    *,
    model: str,
    source: str,
    settings: Mapping[str, object],
    skipped: Sequence[Skipped] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write ``FILES``.

    ``summary.json`` comes last: where it is, the rest is complete. A model that came as ONNX goes as ONNX alone.

    Args:
        out: the folder to write into; made if missing.
        before: the model as it came.
        repaired: what became of it.
        trial: what the two are compared on.
        model: the model, for people.
        source: the samples that it was repaired with, for people.
        settings: the repair's hyperparameters.
        skipped: what of the samples could not be read.
        notes: sentences that a reader should know, beside those of the repair.

    Returns:
        What ``summary.json`` holds.

    Raises:
        ForetasteError: a file cannot be written.
    """
    summary = (
        about(
            schema=SCHEMA,
            method=repaired.method,
            seed=repaired.seed,
            seconds=repaired.seconds,
            source=source,
            settings=settings,
            skipped=skipped,
            packages=("torch", "numpy"),
        )
        | {"model": public_address(model), "facts": plain(repaired.facts), "notes": [*notes, *repaired.notes]}
        | trial.compare(before, repaired.net)
    )
    page = repair_page(summary)
    if isinstance(repaired.net, Net):
        save(repaired.net, out / "model.safetensors")
        export_onnx(repaired.net, out / "model.onnx")
    else:
        assert isinstance(repaired.net, OnnxModule)
        repaired.net.export(out / "model.onnx")
    atomic_text(out / "report.html", page)
    atomic_json(out / "summary.json", summary)
    return summary
