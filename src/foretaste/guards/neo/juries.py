"""Which clean images are fit to judge a part of an image: those that other clean images' parts leave as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foretaste.guards.neo.batched_queries import Asking
from foretaste.guards.neo.hosts import Hosts
from foretaste.guards.neo.regions import Box, paste

CANDIDATES = 20
"""Clean images among which the jury for a place is chosen."""
CONTROLS = 2
"""Other clean images whose part each of them gets to see."""


@dataclass(frozen=True)
class Jury:
    """The clean images that judge one place, those first that are hardest to turn there.

    Attributes:
        box: the place.
        hosts: their numbers.
    """

    box: Box
    hosts: tuple[int, ...]


def summon(box: Box, hosts: Hosts, rng: np.random.Generator) -> Asking[Jury]:
    """Paste parts of clean images into others at one place, and rank these by how often they keep their label."""
    candidates = hosts.order(np.ones(len(hosts), dtype=np.bool_), rng)[:CANDIDATES]
    kept = np.zeros(len(candidates), dtype=np.int64)
    for _ in range(CONTROLS):
        sources = rng.integers(len(hosts), size=len(candidates))
        answers = yield np.concatenate(
            [
                paste(hosts.images[source], hosts.images[[host]], box)
                for host, source in zip(candidates.tolist(), sources.tolist(), strict=True)
            ]
        )
        kept += answers == hosts.labels[candidates]
    return Jury(box, tuple(candidates[np.argsort(-kept, kind="stable")].tolist()))
