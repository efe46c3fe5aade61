"""The guard's search, beside the requests: it corrects the records of those that do not wait for it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from foretaste.classifiers.counting import Counted
from foretaste.errors import ForetasteError
from foretaste.gateway.live_registry import LiveRegistry
from foretaste.gateway.metrics import Metrics
from foretaste.gateway.recognition import recognise
from foretaste.gateway.records.store import Revision, Verdict
from foretaste.gateway.records.writer import Writer
from foretaste.guards.guard import Calibrated, Reconstructing, Screener, Screening, reconstructing
from foretaste.guards.neo import NEOScreener, Registry
from foretaste.guards.trigger import Trigger
from foretaste.samples import Images

log = logging.getLogger("foretaste.gateway")

AT_ONCE = 64
"""Inputs that are searched side by side."""
GATHER_SECONDS = 0.2
"""How long inputs that no request waits for may gather: a search of many costs little more than a search of one."""
REMEMBERED_BYTES = 2**26
"""Memory for answered inputs, which are looked at again when a trigger becomes known: 64 MiB."""
RECENT = 1000
"""Searched inputs whose scores are compared with the promised rate."""
PATIENCE = 30.0
"""Seconds that a record may take to be written before its correction is given up."""

Keep = Callable[[Images, str, bool], bytes | None]
"""Returns an input as PNG if it is to be kept: given the input, its trigger's id, and whether it is trojaned."""

Key = tuple[str, int]
"""Which input: the request's id, and the place in it."""


@dataclass(frozen=True)
class Seen:
    """What is said of one input.

    Attributes:
        corrected: the label to give; None for the model's own.
        verdict: the verdict.
        score: the guard's score; None before it has one.
        trigger: the id of the trigger that it carries, or "".
    """

    corrected: int | None
    verdict: Verdict
    score: float | None = None
    trigger: str = ""


@dataclass(eq=False)
class Search:
    """The search of the inputs of one request.

    Attributes:
        keys: which inputs.
        images: ``uint8 (N, H, W, C)``, N ≥ 1.
        recorded: set once the inputs' records are waiting to be written, so that corrections come after them.
    """

    keys: Sequence[Key]
    images: Images
    recorded: threading.Event = field(default_factory=threading.Event)
    _result: list[Seen] | None = None
    _late: bool = False
    _ready: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, seconds: float) -> list[Seen] | None:
        """Return what the search came to; None if it did not end in time, and then its result corrects the records."""
        with self._ready:
            self._ready.wait_for(lambda: self._result is not None, timeout=seconds)
            self._late = self._result is None
            return self._result

    def end(self, result: list[Seen]) -> bool:
        """Say what the search came to, once, and return whether it was too late for the request."""
        with self._ready:
            if self._result is not None:
                return False
            self._result = result
            self._ready.notify_all()
            return self._late


class Searcher:
    """Searches inputs in a thread of its own.

    Args:
        screener: the calibrated guard.
        classifier: the model; the guard asks the same object.
        registry: the triggers in force.
        writer: where corrections go.
        metrics: what is counted.
        keep: which inputs are kept as pictures.
        most_waiting: inputs that may wait, ≥ 1.
        waited_for: whether requests wait for the search of their inputs.
    """

    def __init__(
        self,
        screener: Screener,
        classifier: Counted,
        registry: LiveRegistry,
        writer: Writer,
        metrics: Metrics,
        keep: Keep,
        most_waiting: int,
        waited_for: bool,
    ) -> None:
        self._screener, self._classifier, self._registry = screener, classifier, registry
        self._writer, self._metrics, self._keep, self._most_waiting = writer, metrics, keep, most_waiting
        self._gather = 0.0 if waited_for else GATHER_SECONDS
        self._finder = reconstructing(screener)
        self._threshold = screener.threshold if isinstance(screener, Calibrated) else None
        self._scores: deque[bool] = deque(maxlen=RECENT)
        self._answered: OrderedDict[Key, tuple[Images, int]] = OrderedDict()
        self._answered_bytes = 0
        self._searches: deque[Search] = deque()
        self._new: list[Trigger] = []
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="search", daemon=True)
        self._thread.start()

    def submit(self, keys: Sequence[Key], images: Images) -> Search | None:
        """Have the inputs of a request searched; None if too many are waiting."""
        with self._changed:
            if self._closed or self._waiting + len(images) > max(self._most_waiting, len(images)):
                self._metrics.not_searched.inc(len(images))
                return None
            search = Search(keys, images)
            self._searches.append(search)
            self._waiting += len(images)
            self._metrics.waiting.set(self._waiting)
            self._changed.notify_all()
        return search

    def remember(self, keys: Sequence[Key], images: Images, labels: Sequence[int]) -> None:
        """Keep answered inputs, to look at them again when a trigger becomes known."""
        with self._changed:
            for key, image, label in zip(keys, images, labels, strict=True):
                self._answered[key] = (np.array(image), label)
                self._answered_bytes += image.nbytes
            while self._answered_bytes > REMEMBERED_BYTES:
                _, (image, _) = self._answered.popitem(last=False)
                self._answered_bytes -= image.nbytes

    def look_back(self, new: Sequence[Trigger]) -> None:
        """Have the answered inputs looked at again for triggers that have become known."""
        if new:
            with self._changed:
                self._new += new
                self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """End after the present search; the inputs that still wait are recorded as not searched."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(seconds)

    def idle(self) -> bool:
        """Return whether nothing waits for its search or is searched."""
        with self._changed:
            return self._waiting == 0 and not self._new

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._searches or self._new or self._closed)
                self._changed.wait_for(
                    lambda: self._waiting >= AT_ONCE or self._new or self._closed, timeout=self._gather
                )
                if self._closed:
                    left = list(self._searches)
                    self._searches.clear()
                    break
                new = tuple(self._new)
                some: list[Search] = []
                while self._searches and sum(len(one.keys) for one in some) < AT_ONCE:
                    some.append(self._searches.popleft())
            try:
                if new:
                    self._look_back(new)
                if some:
                    with self._metrics.search_seconds.time():
                        self._search(some)
            except Exception as error:  # the thread must live on; what failed is counted, logged and recorded
                self._metrics.errors.labels("search").inc()
                log.error("search failed", extra={"error": f"{type(error).__name__}: {error}"})
                self._give_up(some)
            finally:
                with self._changed:
                    del self._new[: len(new)]
                    self._waiting -= sum(len(one.keys) for one in some)
                    self._metrics.waiting.set(self._waiting)
        self._give_up(left)

    def _search(self, searches: list[Search]) -> None:
        """Search the inputs of some requests, and put the triggers found in force."""
        images = np.concatenate([search.images for search in searches])
        finder, before = self._finder, set[str]()
        if finder is not None:
            active = Registry()
            active.keep(self._registry.active)
            finder.registry = active
            before = {trigger.id for trigger in active}
        asked = self._classifier.queries
        screening = self._screener.screen(images)
        self._metrics.queries.labels("search").inc(self._classifier.queries - asked)
        seen = self._read(screening, {} if finder is None else self._publish(finder, before))
        start = 0
        revisions: list[Revision] = []
        for search in searches:
            part = seen[start : start + len(search.keys)]
            start += len(search.keys)
            if search.end(part):
                revisions += self._revisions(search, part)
        self._correct(revisions)

    def _publish(self, finder: Reconstructing, before: set[str]) -> dict[str, str]:
        """Put found triggers in force for all workers; return under which ids they are on record, "" if they are not.

        A look that turns some clean images is none: in force, it would stop whatever shows it, again and again.
        """
        here = {trigger.id: trigger for trigger in finder.registry}
        replaced = {}
        if isinstance(finder, NEOScreener):
            finder.revised()  # answered inputs are looked at again by what is in force for all, see ``look_back``
            latest = {old: finder.latest_id(old) for old in before - here.keys()}
            replaced = {old: better for old, better in latest.items() if better in here}
        found = [trigger for trigger in here.values() if trigger.id not in before]
        dropped = self._registry.dropped
        doubtful = {one.id for one in found if not one.confirmed and one.id not in replaced.values()}
        stands_for = self._registry.publish([one for one in found if one.id not in doubtful], replaced)
        self._metrics.triggers_dropped.inc(self._registry.dropped - dropped)
        self.look_back(self._registry.refresh())
        self._metrics.triggers.set(len(self._registry.active))
        return {**dict.fromkeys(doubtful, ""), **stands_for}

    def _read(self, screening: Screening, stands_for: dict[str, str]) -> list[Seen]:
        """Return what the guard says of each input, less what a person knows better."""
        released = (
            {trigger.id for trigger in self._finder.registry if self._registry.is_released(trigger)}
            if self._finder is not None
            else set[str]()
        )
        seen = []
        for row in range(len(screening)):
            score, trigger = float(screening.scores[row]), str(screening.trigger_ids[row])
            if screening.trojaned[row] and not (trigger and trigger in released):
                corrected = int(screening.corrected[row])
                seen.append(Seen(corrected, Verdict.TROJANED, score, stands_for.get(trigger, trigger)))
            elif self._finder is not None and screening.queries[row] <= 1:
                seen.append(Seen(None, Verdict.UNSEARCHED, score))
            else:
                seen.append(Seen(None, Verdict.CLEAN, score))
            if self._threshold is not None and seen[-1].verdict != Verdict.UNSEARCHED:
                self._scores.append(score > self._threshold.value)
        if self._scores:
            self._metrics.above_threshold.set(sum(self._scores) / len(self._scores))
        return seen

    def _revisions(self, search: Search, seen: Sequence[Seen]) -> list[Revision]:
        """Return what corrects the records of a request that was answered before its search had ended."""
        self._metrics.late.inc(len(seen))
        if not search.recorded.wait(PATIENCE):
            return []
        return [
            revision(key, one, self._keep(image, one.trigger, True) if one.verdict == Verdict.TROJANED else None)
            for key, image, one in zip(search.keys, search.images, seen, strict=True)
        ]

    def _look_back(self, new: Sequence[Trigger]) -> None:
        """Look for triggers that have become known in the inputs that were answered before."""
        with self._changed:
            answered = list(self._answered.items())
        registry = Registry()
        registry.keep(new)
        for start in range(0, len(answered), AT_ONCE * 4):
            some = answered[start : start + AT_ONCE * 4]
            labels = np.array([label for _, (_, label) in some], dtype=np.int64)
            images = np.stack([image for _, (image, _) in some])
            found, queries = recognise(registry, images, labels, self._classifier)
            self._metrics.queries.labels("look back").inc(queries)
            self._correct(
                [
                    revision(
                        key,
                        Seen(one.corrected, Verdict.TROJANED, self.certain, one.trigger.id),
                        self._keep(image, one.trigger.id, True),
                    )
                    for (key, (image, _)), one in zip(some, found, strict=True)
                    if one is not None
                ]
            )

    @property
    def certain(self) -> float:
        """The score of an input in which a known trigger is at work: above the threshold."""
        return 1.0 if self._threshold is None else self._threshold.value + 1.0

    def _correct(self, revisions: list[Revision]) -> None:
        """Write other verdicts on inputs that have been answered."""
        trojaned = [one for one in revisions if one.verdict == Verdict.TROJANED]
        with self._changed:
            for one in trojaned:
                forgotten = self._answered.pop((one.request, one.position), None)
                self._answered_bytes -= 0 if forgotten is None else forgotten[0].nbytes
        if not revisions:
            return
        self._writer.submit(revisions=revisions).result(PATIENCE)
        self._metrics.revised.inc(len(trojaned))

    def _give_up(self, searches: Sequence[Search]) -> None:
        """Say of inputs that they are not searched."""
        revisions: list[Revision] = []
        for search in searches:
            left = [Seen(None, Verdict.UNSEARCHED) for _ in search.keys]
            if search.end(left) and search.recorded.wait(PATIENCE):
                revisions += [revision(key, one, None) for key, one in zip(search.keys, left, strict=True)]
        try:
            self._correct(revisions)
        except ForetasteError as error:
            self._metrics.errors.labels("records").inc()
            log.error("records not corrected", extra={"error": str(error)})


def revision(key: Key, seen: Seen, picture: bytes | None) -> Revision:
    """Return another verdict on an answered input."""
    return Revision(
        request=key[0],
        position=key[1],
        corrected=seen.corrected,
        verdict=seen.verdict,
        score=seen.score,
        trigger=seen.trigger,
        picture=picture,
    )
