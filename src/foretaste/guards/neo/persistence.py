"""A screener on disk, so that what it knows survives a restart: JSON, arrays, and the triggers as pictures."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foretaste.calibration import Threshold
from foretaste.classifiers.classifier import Classifier
from foretaste.errors import ForetasteError, UsageError
from foretaste.guards.neo.neo import NEO
from foretaste.guards.neo.probe_sets import ProbeSet
from foretaste.guards.neo.references import References
from foretaste.guards.neo.regions import Box
from foretaste.guards.neo.registry import Registry
from foretaste.guards.neo.screener import NEOScreener, State
from foretaste.guards.neo.search import Effect
from foretaste.guards.neo.sequential import SequentialTest
from foretaste.io.atomic import atomic_path, atomic_text

STATE, REFERENCES, TRIGGERS = "state.json", "references.npz", "triggers"
"""The files in the folder, and the folder of the registry."""

Rate = Annotated[float, Field(gt=0, lt=1)]


class Strict(BaseModel):
    """Takes what it knows, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TestCard(Strict):
    """A sequential test."""

    p0: Rate
    p1: Rate
    alpha: Rate
    beta: Rate
    least: float


class ThresholdCard(Strict):
    """A threshold."""

    value: float
    rate: Rate
    guaranteed: bool
    scores: Annotated[tuple[float, ...], Field(min_length=1)]


class ProbeSetCard(Strict):
    """A probe set."""

    box: tuple[int, int, int, int]
    references: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class StateCard(Strict):
    """All that calibration found out, but for the images."""

    format: Annotated[int, Field(ge=2, le=2)] = 2
    method: dict[str, Any]
    seed: Annotated[int, Field(ge=0)]
    tests: dict[Effect, TestCard]
    threshold: ThresholdCard
    probe_sets: tuple[ProbeSetCard, ...]
    shares: dict[int, float]
    cost: Annotated[float, Field(ge=0)]


def save(screener: NEOScreener, folder: str | Path) -> None:
    """Write what a screener knows to a folder: its calibration and its triggers, not the inputs that it has seen.

    Raises:
        ForetasteError: it cannot be written.
    """
    folder, state = Path(folder), screener.state
    card = StateCard(
        method=asdict(state.method),
        seed=state.seed,
        tests={effect: TestCard(**asdict(test)) for effect, test in state.tests.items()},
        threshold=ThresholdCard(
            value=state.threshold.value,
            rate=state.threshold.rate,
            guaranteed=state.threshold.guaranteed,
            scores=tuple(state.threshold.scores.tolist()),
        ),
        probe_sets=tuple(
            ProbeSetCard(
                box=(probe_set.box.top, probe_set.box.left, probe_set.box.bottom, probe_set.box.right),
                references=probe_set.references,
            )
            for probe_set in state.probe_sets.values()
        ),
        shares=state.shares,
        cost=state.cost,
    )
    screener.registry.save(folder / TRIGGERS)
    with atomic_path(folder / REFERENCES) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=state.references.images, labels=state.references.labels)
    atomic_text(folder / STATE, card.model_dump_json(indent=2) + "\n")


def load(folder: str | Path, classifier: Classifier) -> NEOScreener:
    """Read what ``save`` wrote, for the same classifier, without a question to it.

    Raises:
        ForetasteError: there is no such folder, or a file in it is missing, damaged, or not such a file.
    """
    folder = Path(folder)
    path = folder / STATE
    try:
        card = StateCard.model_validate_json(path.read_bytes())
        method = NEO(**card.method)
        if set(card.tests) != set(Effect):
            raise ForetasteError(f"{path} is damaged: it has no test of each effect")
    except FileNotFoundError:
        raise ForetasteError(f"there is no screener in {folder}") from None
    except OSError as error:
        raise ForetasteError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ForetasteError(
            f"{path} is damaged: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        ) from None
    except (TypeError, UsageError) as error:
        raise ForetasteError(f"{path} is damaged: {error}") from None
    references = read_references(folder / REFERENCES)
    if any(reference >= len(references) for probe_set in card.probe_sets for reference in probe_set.references):
        raise ForetasteError(f"{path} is damaged: its probe sets are not of the images in {REFERENCES}")
    state = State(
        method=method,
        seed=card.seed,
        references=references,
        probe_sets={
            Box(*probe_set.box): ProbeSet(Box(*probe_set.box), probe_set.references) for probe_set in card.probe_sets
        },
        tests={effect: SequentialTest(**test.model_dump()) for effect, test in card.tests.items()},
        threshold=Threshold(
            value=card.threshold.value,
            rate=card.threshold.rate,
            n=len(card.threshold.scores),
            guaranteed=card.threshold.guaranteed,
            scores=np.array(card.threshold.scores, dtype=np.float64),
        ),
        shares=card.shares,
        cost=card.cost,
    )
    return NEOScreener(classifier, state, Registry.load(folder / TRIGGERS))


def read_references(path: Path) -> References:
    """Read clean images and their labels.

    Raises:
        ForetasteError: the file is missing, damaged, or not such a file.
    """
    try:
        # Of a damaged file NumPy leaves open what it opened itself.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except FileNotFoundError:
        raise ForetasteError(f"there is no file {path}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ForetasteError(f"cannot read {path}: {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise ForetasteError(f"{path} is damaged: it does not hold images and their labels")
    return References(images, labels)
