"""NEO at work: what is known already first, then the search, then a look back."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from foretaste.calibration import Threshold
from foretaste.classifiers.classifier import Classifier
from foretaste.guards.guard import Screening
from foretaste.guards.neo.batched_queries import Queries, ask
from foretaste.guards.neo.correct import FURTHER_COVERS, blended_label, covered_label, known_label
from foretaste.guards.neo.inpainting import Image
from foretaste.guards.neo.probe_sets import ProbeSet
from foretaste.guards.neo.reconstruct import LOSS, cut_out, from_carriers, measured
from foretaste.guards.neo.references import References
from foretaste.guards.neo.regions import Box
from foretaste.guards.neo.registry import Match, Registry
from foretaste.guards.neo.search import Found, Search, Tests, floor, suspicion
from foretaste.guards.threshold_screener import check_shape
from foretaste.guards.trigger import Trigger
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Images, Labels

if TYPE_CHECKING:
    from foretaste.guards.neo.neo import NEO

WAVE = 64
"""Images that are searched side by side before what was found is looked for in all others."""
REMEMBERED_BYTES = 2**26
"""Memory for earlier inputs, which are looked at again when a trigger becomes known: 64 MiB."""
MOST_CARRIERS = 8
"""Images that a trigger's reconstruction is made from, at most."""
COMPARED = 64
"""Clean images that tell which pixels of a trigger's surroundings are ordinary."""
MATCHED_AT_ONCE = 1024
"""Images in which known triggers are looked for in one piece, which bounds the memory."""
RECENT = 1000
"""Answers by which a label's sudden share is judged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What calibration found out.

    Attributes:
        method: the hyperparameters.
        seed: where all random numbers come from.
        references: clean images that the classifier knows.
        probe_sets: which of them judge each smallest box, by box.
        tests: the sequential test of each effect.
        threshold: an input is trojaned only at a score above it; holds the scores of the clean images searched.
        shares: each label's share of the answers to the clean set.
        cost: questions that searching a clean image takes on average.
    """

    method: NEO
    seed: int
    references: References
    probe_sets: Mapping[Box, ProbeSet]
    tests: Tests
    threshold: Threshold
    shares: dict[int, float]
    cost: float


@dataclass(frozen=True, kw_only=True)
class Revision:
    """An earlier input that is seen with other eyes now.

    Attributes:
        number: which: the inputs that this screener had been given before it.
        label: the classifier's answer.
        corrected: the label to give instead.
        trigger_id: the trigger that it carries.
    """

    number: int
    label: int
    corrected: int
    trigger_id: str


@dataclass
class Row:
    """What is known of one input so far."""

    number: int
    image: Image
    label: int
    corrected: int
    score: float
    queries: int = 1
    trigger: Trigger | None = None
    trojaned: bool = False
    looked_for: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Outcome:
    """What the search in one image came to."""

    score: float
    found: Found | None
    corrected: int


class NEOScreener:
    """Screens inputs; remembers the triggers that it finds, and is safe to use from several threads.

    An input is trojaned if a part of it turns clean images, its score is above the threshold, and covering the part
    changes its label. A known trigger is recognised by its pixels; whether it is at work is one question, with the
    trigger covered.

    Attributes:
        state: what calibration found out.
        registry: the known triggers; grows as inputs are screened.
        learning_queries: questions that reconstructing triggers has cost so far, over all inputs.
        unsearched: inputs so far in which only known triggers were looked for, because of ``search_budget``.
    """

    def __init__(self, classifier: Classifier, state: State, registry: Registry) -> None:
        self.state, self.registry = state, registry
        self.learning_queries = 0
        self.unsearched = 0
        self._classifier = classifier
        self._lock = RLock()
        self._count = 0
        self._allowance = 0.0
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._memory: deque[Row] = deque(maxlen=max(REMEMBERED_BYTES // max(state.references.images[:1].nbytes, 1), 1))
        self._carriers: dict[str, list[Image]] = {}
        self._successors: dict[str, Trigger] = {}
        self._revisions: list[Revision] = []

    @property
    def threshold(self) -> Threshold:
        """Where suspicion begins, and the clean scores that it was set from."""
        return self.state.threshold

    def screen(self, images: Images, on_progress: OnProgress = silent) -> Screening:
        """Screen inputs ``uint8 (N, H, W, C)``, any N ≥ 0, of the clean set's shape.

        All inputs of the call are looked at again when a trigger becomes known; of earlier calls' inputs, so are the
        latest that fit in 64 MiB, see ``revised``.

        Raises:
            UsageError: the images are of another shape.
            ForetasteError: the classifier fails.
        """
        check_shape(images, self.state.references.images.shape[1:])
        rows = self._begin(images)
        self._recognise(rows)
        chosen = self._worth_searching([row for row in rows if not row.trojaned])
        done = len(rows) - len(chosen)
        for start in range(0, len(chosen), WAVE):
            on_progress(
                Progress(phase="neo: screen", done=done + start, total=len(rows), note=f"{len(self.registry)} triggers")
            )
            self._search([row for row in chosen[start : start + WAVE] if not row.trojaned], rows)
        if rows:
            on_progress(
                Progress(phase="neo: screen", done=len(rows), total=len(rows), note=f"{len(self.registry)} triggers")
            )
        with self._lock:
            # What another thread has found meanwhile, too; from here on its look back sees these rows.
            self._recognise(rows)
            self._settle(rows)
            result = screening(rows)
            kept = rows[-(self._memory.maxlen or 0) :]
            for row in kept:
                row.image = np.array(row.image)  # the caller may use the array for something else
            self._memory.extend(kept)
        return result

    def search(self, images: Images) -> Screening:
        """Search every input as if no trigger were known, and learn nothing: what a first search costs and finds.

        Raises:
            UsageError: the images are of another shape.
            ForetasteError: the classifier fails.
        """
        check_shape(images, self.state.references.images.shape[1:])
        labels = self._classifier.classify(images).labels
        rows = [
            Row(-1, image, label, label, floor(self.state.tests))
            for image, label in zip(images, labels.tolist(), strict=True)
        ]
        for start in range(0, len(rows), WAVE):
            self._examine(rows[start : start + WAVE])
        return screening(rows)

    def revised(self) -> list[Revision]:
        """Return the inputs of earlier calls that turned out to carry a trigger since this was last called."""
        with self._lock:
            revisions, self._revisions = self._revisions, []
        return revisions

    def latest_id(self, trigger_id: str) -> str:
        """Return the id that a trigger of an earlier screening has now: a better picture of it has another one."""
        with self._lock:
            while trigger_id in self._successors:
                trigger_id = self._successors[trigger_id].id
        return trigger_id

    # The steps of a call.

    def _begin(self, images: Images) -> list[Row]:
        """Ask for the inputs' own labels."""
        labels: Labels = self._classifier.classify(images).labels
        with self._lock:
            first, self._count = self._count, self._count + len(images)
            self._recent.extend(labels.tolist())
        return [
            Row(first + place, image, label, label, floor(self.state.tests))
            for place, (image, label) in enumerate(zip(images, labels.tolist(), strict=True))
        ]

    def _recognise(self, rows: Sequence[Row]) -> None:
        """Look for known triggers in rows that are not known to be trojaned, and ask whether they are at work."""
        rows = [row for row in rows if not row.trojaned]
        known = {trigger.id for trigger in self.registry}
        rows = [row for row in rows if not known <= row.looked_for]
        if not rows or not known:
            return
        matches: list[Match | None] = []
        for start in range(0, len(rows), MATCHED_AT_ONCE):
            some = rows[start : start + MATCHED_AT_ONCE]
            matches += self.registry.match(np.stack([row.image for row in some]), np.array([row.label for row in some]))
        for row in rows:
            row.looked_for |= known
        seen = [(row, match) for row, match in zip(rows, matches, strict=True) if match is not None]
        asked = ask([self._without(row, match) for row, match in seen], self._classifier)
        for (row, match), answer in zip(seen, asked, strict=True):
            row.queries += answer.queries
            if answer.result != row.label:
                row.corrected, row.trojaned, row.trigger = answer.result, True, match.trigger
                row.score = max(row.score, self._certain)
                self._add_carrier(match.trigger, row.image)

    def _without(self, row: Row, match: Match) -> Callable[[], Queries[int]]:
        """Return the search for the label of a row without the known trigger that was seen in it."""
        box, mask = match.box, match.trigger.mask
        if not match.blended:
            return partial(known_label, row.image, box, mask)
        rng = np.random.default_rng([self.state.seed, crc32(row.image.tobytes()), 2])
        return partial(blended_label, row.image, box, mask, row.label, match.trigger.target, self.state.references, rng)

    @property
    def _certain(self) -> float:
        """The score of an input in which a known trigger is at work: above all thresholds."""
        highest = max(math.log((1 - test.beta) / test.alpha) for test in self.state.tests.values())
        return max(highest, self.state.threshold.value) + 1

    def _worth_searching(self, rows: list[Row]) -> list[Row]:
        """Choose the rows to search within the budget, those first whose label has become more frequent than it was."""
        budget = self.state.method.search_budget
        if budget is None:
            return rows
        with self._lock:
            self._allowance = min(self._allowance + budget * len(rows), max(budget, 1.0) * RECENT)
            affordable = int(self._allowance // max(self.state.cost, 1.0))
            counts, total = Counter(self._recent), len(self._recent)
            self._allowance -= min(affordable, len(rows)) * self.state.cost
            self.unsearched += max(len(rows) - affordable, 0)

        def surprise(row: Row) -> tuple[float, int]:
            usual = self.state.shares.get(row.label, 0.0)
            # The logarithm of how much more frequent the label is, each as if it had been seen once more.
            excess = math.log((counts[row.label] + 1) / (total * usual + 1))
            return -round(excess, 1), crc32(row.image.tobytes())

        return sorted(rows, key=surprise)[:affordable]

    def _examine(self, rows: list[Row]) -> list[tuple[Row, Found]]:
        """Search rows, note what came of it in them, and return those that are trojaned with the part that shows it."""
        asked = ask([partial(self._look_into, row.image, row.label) for row in rows], self._classifier)
        trojaned = []
        for row, answer in zip(rows, asked, strict=True):
            row.queries += answer.queries
            row.score = max(row.score, answer.result.score)
            if answer.result.found is not None:
                row.corrected, row.trojaned = answer.result.corrected, True
                trojaned.append((row, answer.result.found))
        return trojaned

    def _look_into(self, image: Image, label: int) -> Queries[Outcome]:
        """Search one image and cover what was found."""
        state = self.state
        rng = np.random.default_rng([state.seed, crc32(np.ascontiguousarray(image).tobytes())])
        parts = yield from Search(
            image,
            label,
            state.references,
            state.probe_sets,
            tests=state.tests,
            largest=state.method.side(image.shape),
            budget=state.method.queries - 1 - FURTHER_COVERS,
            rng=rng,
        ).run()
        score = suspicion(parts, state.tests)
        found = next((part for part in parts if part.accepted is not None), None)
        if found is None:
            return Outcome(min(score, state.threshold.value), None, label)
        corrected = yield from covered_label(
            image, found.box, found.covered, state.references.images[int(rng.integers(len(state.references)))]
        )
        if corrected == label:
            return Outcome(min(score, state.threshold.value), None, label)
        return Outcome(score, found, corrected)

    def _search(self, rows: list[Row], together: Sequence[Row]) -> None:
        """Search rows, reconstruct the triggers found, and look for them in all rows that there are."""
        trojaned = self._examine(rows)
        if not trojaned:
            return
        with self._lock:
            for row, found in trojaned:
                if self._match(row) is None:
                    self._reconstruct(row, found)
            for row, _ in trojaned:
                self._recover(row)
            self._recognise(together)
            self._refine()
            # A better picture may be found where the first one was not.
            self._recognise(together)
            self._look_back()

    def _match(self, row: Row) -> Match | None:
        """Look for a known trigger in one row."""
        return self.registry.match(row.image[None], np.array([row.label]))[0]

    def _recover(self, row: Row) -> None:
        """Ask for the label without the known trigger's own pixels: they are fewer than those of the part found."""
        match = self._match(row)
        if match is None:
            return
        [answer] = ask([self._without(row, match)], self._classifier)
        row.queries += answer.queries
        row.trigger = match.trigger
        if answer.result != row.label:
            row.corrected = answer.result
            self._add_carrier(match.trigger, row.image)

    def _reconstruct(self, row: Row, found: Found) -> None:
        """Cut the trigger out of a row and add it to the registry."""
        assert found.accepted is not None
        rng = np.random.default_rng([self.state.seed, crc32(row.image.tobytes()), 1])
        [answer] = ask(
            [partial(cut_out, row.image, found.box, found.accepted, row.label, self.state.references, rng)],
            self._classifier,
        )
        self.learning_queries += answer.queries
        if answer.result is not None:
            row.trigger = self.registry.add(answer.result)

    def _measured(self, trigger: Trigger) -> Trigger:
        """Return the trigger with its own flip rate."""
        rng = np.random.default_rng([self.state.seed, 3])
        [answer] = ask([partial(measured, trigger, self.state.references, rng)], self._classifier)
        self.learning_queries += answer.queries
        return answer.result

    def _add_carrier(self, trigger: Trigger, image: Image) -> None:
        """Keep an image that holds a trigger, to make the trigger's picture better with."""
        with self._lock:
            carriers = self._carriers.setdefault(trigger.id, [])
            if len(carriers) < MOST_CARRIERS and not any((image == other).all() for other in carriers):
                carriers.append(np.array(image))

    def _refine(self) -> None:
        """Correct each trigger by what its carriers have in common, and drop those that turn out to be another's."""
        margin = self.state.method.side(self.state.references.images.shape[1:])
        for trigger in self.registry:
            clean = self.state.references.images[:COMPARED]
            better = from_carriers(trigger, self._carriers.get(trigger.id, []), clean, margin)
            if better.id != trigger.id:
                better = self._measured(better)
            if better.id != trigger.id and better.flip_rate >= trigger.flip_rate - LOSS:
                self._carriers[better.id] = self._carriers.pop(trigger.id)
                self.registry.replace(trigger, better)
                self._succeed(trigger, better)
        kept = Registry(sorted(self.registry, key=lambda trigger: -len(self._carriers.get(trigger.id, []))))
        for trigger in self.registry:
            stands_for = kept.add(trigger)
            if stands_for.id != trigger.id:
                self._succeed(trigger, stands_for)
                self._carriers.pop(trigger.id, None)
        self.registry.keep(kept)

    def _succeed(self, old: Trigger, new: Trigger) -> None:
        """Note that a trigger is known as another one now."""
        # A picture may come back that was given up before; it must not lead away from itself.
        self._successors.pop(new.id, None)
        self._successors[old.id] = new

    def _settle(self, rows: Sequence[Row]) -> None:
        """Give rows the triggers as they are known now, and the labels that these leave."""
        known = {trigger.id: trigger for trigger in self.registry}
        for row in rows:
            if row.trigger is not None and row.trigger.id in self._successors:
                row.trigger = known.get(self.latest_id(row.trigger.id), row.trigger)
                self._recover(row)

    def _look_back(self) -> None:
        """Look for the known triggers in the inputs of earlier calls."""
        with self._lock:
            earlier = [row for row in self._memory if not row.trojaned]
            self._recognise(earlier)
            self._settle(earlier)
            self._revisions += [
                Revision(number=row.number, label=row.label, corrected=row.corrected, trigger_id=row.trigger.id)
                for row in earlier
                if row.trojaned and row.trigger is not None
            ]


def screening(rows: Sequence[Row]) -> Screening:
    """Return what is known of the rows as a guard's answer."""
    return Screening(
        labels=np.array([row.label for row in rows], dtype=np.int64),
        corrected=np.array([row.corrected for row in rows], dtype=np.int64),
        trojaned=np.array([row.trojaned for row in rows], dtype=np.bool_),
        scores=np.array([row.score for row in rows], dtype=np.float32),
        trigger_ids=np.array([row.trigger.id if row.trigger else "" for row in rows], dtype=np.str_),
        queries=np.array([row.queries for row in rows], dtype=np.int64),
    )
