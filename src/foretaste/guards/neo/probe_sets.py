"""Which clean images are fit to judge a part of an image: those that other clean images' parts leave as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foretaste.guards.neo.batched_queries import Queries
from foretaste.guards.neo.references import References
from foretaste.guards.neo.regions import Box, paste

CANDIDATES = 20
"""Clean images among which the probe set for a place is chosen."""
CONTROLS = 2
"""Other clean images whose part each of them gets to see."""


@dataclass(frozen=True)
class ProbeSet:
    """The clean images that judge one place, those first that are hardest to turn there.

    Attributes:
        box: the place.
        references: their numbers.
    """

    box: Box
    references: tuple[int, ...]


def select_probes(box: Box, references: References, rng: np.random.Generator) -> Queries[ProbeSet]:
    """Paste parts of clean images into others at one place, and rank these by how often they keep their label."""
    candidates = references.order(np.ones(len(references), dtype=np.bool_), rng)[:CANDIDATES]
    kept = np.zeros(len(candidates), dtype=np.int64)
    for _ in range(CONTROLS):
        sources = rng.integers(len(references), size=len(candidates))
        answers = yield np.concatenate(
            [
                paste(references.images[source], references.images[[reference]], box)
                for reference, source in zip(candidates.tolist(), sources.tolist(), strict=True)
            ]
        )
        kept += answers == references.labels[candidates]
    return ProbeSet(box, tuple(candidates[np.argsort(-kept, kind="stable")].tolist()))
