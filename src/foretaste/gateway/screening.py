"""What the gateway does with one request: ask the model, look at the inputs, write the verdict down, then answer."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from threading import Lock
from urllib.parse import unquote, urlsplit

import numpy as np

from foretaste.classifiers.classifier import Answers
from foretaste.classifiers.counting import Counted
from foretaste.classifiers.http_retry import Reply
from foretaste.errors import ForetasteError
from foretaste.gateway.backends import backend_of, open_model
from foretaste.gateway.calibrated import calibrate, promised_rate, read_clean
from foretaste.gateway.live_registry import LiveRegistry
from foretaste.gateway.messages import (
    INFER,
    AmbiguousError,
    CompressionError,
    Request,
    UnscreenableError,
    decompressed,
    refusal,
    rewritten,
)
from foretaste.gateway.metrics import Metrics
from foretaste.gateway.recognition import recognise
from foretaste.gateway.records.store import Action, Record, Store, StoreError, Verdict, as_png, fingerprint
from foretaste.gateway.records.writer import Writer
from foretaste.gateway.searching import Key, Search, Searcher, Seen
from foretaste.gateway.settings import Settings
from foretaste.guards.guard import reconstructing
from foretaste.guards.neo import NEOScreener, Registry
from foretaste.samples import Images

log = logging.getLogger("foretaste.gateway")

REMEMBERED = 4096
"""Images whose answers are kept, so that the guard does not ask about what the model has just been asked."""
LATEST = 1000
"""Requests whose times the review page shows the median of."""
SHUTDOWN_SECONDS = 10.0
"""How long the present search may take when the gateway ends."""
PICTURES_PER_TRIGGER = 100
"""Inputs with one trigger whose pictures a worker keeps: the first, so that a flood does not push them out."""
NOT_SCREENED = refusal(503, "the input could not be screened")
"""What a client gets for an input that cannot be screened or recorded, if the policy is to block."""
UNHURRIED = 1000.0
"""Milliseconds that a request waits for a guard that recognises no triggers, which else would stop nothing."""


class Gateway:
    """A guard in front of a model; safe to use from several threads.

    Attributes:
        settings: what the gateway is told.
        metrics: what is counted.
        store: the records.
        classifier: the guarded model, for questions.
        classes: the class names.
        registry: the triggers in force.
        latest_seconds: how long this worker's latest requests for inference took.

    Args:
        settings: what the gateway is told.

    Raises:
        UsageError: the settings name what there is not.
        ForetasteError: the model, the clean images or the records cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.store = Store(settings.database_url)
        model = open_model(settings)
        self.classifier = Counted(model, remembered=REMEMBERED)
        clean = read_clean(settings, model)
        self.classes = model.classes or clean.classes
        screener = calibrate(settings, self.classifier, clean)
        self.backend = backend_of(settings, model, clean.sample_shape)
        self.guarded = self.backend.guarded
        self.registry = LiveRegistry(self.store, settings.most_triggers)
        self.registry.refresh()
        self.writer = Writer(self.store)
        self._recognises = isinstance(screener, NEOScreener)
        self._budget = self._budget_seconds()
        self.searcher = Searcher(
            screener,
            self.classifier,
            self.registry,
            self.writer,
            self.metrics,
            self._picture,
            settings.queue,
            waited_for=self._budget > 0,
        )
        self.latest_seconds: deque[float] = deque(maxlen=LATEST)
        self._pictures: Counter[str] = Counter()
        self._lock = Lock()
        self.metrics.triggers.set(len(self.registry.active))
        if (rate := promised_rate(screener)) is not None:
            self.metrics.promised.set(rate)

    def _budget_seconds(self) -> float:
        given = self.settings.budget_ms
        return (0.0 if self._recognises else UNHURRIED) / 1000 if given is None else given / 1000

    def close(self) -> None:
        """End: write down all that is to be written."""
        self.searcher.close(SHUTDOWN_SECONDS)
        self.writer.close()
        self.store.close()

    def ready(self, request: Request) -> bool:
        """Return whether requests can be served: the model server is ready, and the records can be read."""
        try:
            self.store.version()
        except StoreError:
            return False
        return self.backend.forward(request).status == 200

    def handle(self, request: Request) -> Reply:
        """Return the answer to a request whose path begins with ``/v2``."""
        path = unquote(urlsplit(request.path).path)
        if not {"", ".", ".."}.isdisjoint(path.removeprefix("/").split("/")):
            # The model server might take it for the path of a request that is to be screened.
            return refusal(400, "the path has empty or dotted parts")
        infer = INFER.fullmatch(path)
        if infer is None or request.method != "POST":
            if request.method not in ("GET", "HEAD"):
                self.metrics.unscreened.labels("other").inc()
            return self._forward(request)
        try:
            self.guarded.require(infer["model"], infer["version"])
            request = decompressed(request, self.settings.max_body)
            images = self.guarded.images(request)
        except UnscreenableError as reason:
            self.metrics.unscreened.labels(str(reason)).inc()
            return self._forward(request)
        except AmbiguousError as error:
            return refusal(400, f"the request is ambiguous: {error}")
        except CompressionError as error:
            return refusal(415, f"the body cannot be read: {error}")
        with self.metrics.seconds.labels("model").time():
            reply = self._forward(request)
        if reply.status != 200:
            self.metrics.unscreened.labels("status").inc()
            return reply
        try:
            return self._answer(request, images, reply)
        except Exception as error:  # whatever it is, the policy says what the client gets
            self._failed(request, "records" if isinstance(error, StoreError) else "screening", error)
            return NOT_SCREENED if self.settings.on_error == "block" else reply

    def _failed(self, request: Request, part: str, error: Exception) -> None:
        """Count and log a request that could not be screened or recorded."""
        self.metrics.errors.labels(part).inc()
        log.error("request not screened", extra={"request_id": request.id, "part": part, "error": describe(error)})

    def _forward(self, request: Request) -> Reply:
        reply = self.backend.forward(request)
        if reply.status >= 500:
            self.metrics.errors.labels("upstream").inc()
        return reply

    def _answer(self, request: Request, images: Images, reply: Reply) -> Reply:
        """Screen the inputs of a request that the model has answered, write it down, and return what the client gets.

        Raises:
            ForetasteError: they cannot be screened, or not be written down.
        """
        answers = self.guarded.answers(reply, len(images))
        readable = answers is not None
        if answers is None:
            # The client asked for other outputs, or not for numbers.
            answers = self.classifier.classify(images)
        else:
            self.classifier.remember(images, answers)
        prints = [fingerprint(image) for image in images]
        search = None
        try:
            with self.metrics.seconds.labels("screening").time():
                seen, search = self._screen(request.id, images, answers, prints)
        except Exception as error:  # whatever it is, it goes on record, and the policy says what the client gets
            self._failed(request, "screening", error)
            seen = [Seen(None, Verdict.ERROR)] * len(images)
        try:
            action = self._action(seen, readable)
            with self.metrics.seconds.labels("records").time():
                written = self.writer.submit(self._records(request.id, images, answers, prints, seen, action))
                if search is not None:
                    search.recorded.set()
                written.result(self.settings.timeout)
        finally:
            if search is not None:
                search.recorded.set()
        for one in seen:
            self.metrics.inputs.labels(one.verdict).inc()
        return self._reply(reply, answers, seen, action, readable)

    def _screen(
        self, request_id: str, images: Images, answers: Answers, prints: Sequence[str]
    ) -> tuple[list[Seen], Search | None]:
        """Look for known triggers, and have the other inputs searched.

        Returns:
            What is said of each input now, and the search that will correct it, if it has not ended in time.
        """
        self.searcher.look_back(self.registry.refresh())
        passed = self.registry.passed
        recognised, queries = recognise(self.registry.active, images, answers.labels, self.classifier)
        self.metrics.queries.labels("known trigger").inc(queries)
        seen = [Seen(None, Verdict.CLEAN) for _ in images]
        rest: list[int] = []
        for row, (one, name) in enumerate(zip(recognised, prints, strict=True)):
            if name in passed:
                continue
            if one is not None:
                seen[row] = Seen(one.corrected, Verdict.TROJANED, self.searcher.certain, one.trigger.id)
            else:
                rest.append(row)
        if not rest:
            return seen, None
        keys: list[Key] = [(request_id, row) for row in rest]
        search = self.searcher.submit(keys, images[rest])
        found = None if search is None else search.wait(self._budget)
        for place, row in enumerate(rest):
            if found is not None:
                seen[row] = found[place]
            else:
                seen[row] = Seen(None, Verdict.UNSEARCHED if search is None else Verdict.PENDING)
        open_ = [row for row in rest if seen[row].verdict != Verdict.TROJANED]
        self.searcher.remember([(request_id, row) for row in open_], images[open_], answers.labels[open_].tolist())
        return seen, search

    def _action(self, seen: Sequence[Seen], readable: bool) -> Action:
        """Return what is done with the model's answer to a request, as the mode has it.

        An answer in which the label cannot be found cannot be corrected, so it is not given.
        """
        if self.settings.on_error == "block" and any(one.verdict == Verdict.ERROR for one in seen):
            return Action.BLOCKED
        if self.settings.mode == "observe" or all(one.verdict != Verdict.TROJANED for one in seen):
            return Action.PASSED
        if self.settings.mode == "block" or not readable:
            return Action.BLOCKED
        return Action.CORRECTED

    def _records(
        self,
        request_id: str,
        images: Images,
        answers: Answers,
        prints: Sequence[str],
        seen: Sequence[Seen],
        action: Action,
    ) -> list[Record]:
        now = time.time()
        return [
            Record(
                request=request_id,
                position=row,
                time=now,
                sha256=name,
                label=label,
                corrected=label if one.corrected is None else one.corrected,
                verdict=one.verdict,
                score=one.score,
                trigger=one.trigger,
                action=Action.PASSED if action == Action.CORRECTED and one.verdict != Verdict.TROJANED else action,
                picture=self._picture(image, one.trigger, one.verdict == Verdict.TROJANED, name),
            )
            for row, (image, label, name, one) in enumerate(
                zip(images, answers.labels.tolist(), prints, seen, strict=True)
            )
        ]

    def _picture(self, image: Images, trigger: str, trojaned: bool, name: str | None = None) -> bytes | None:
        """Return an input as PNG if it is to be kept: it is trojaned, or one of those that are kept by chance."""
        if trojaned:
            if trigger:
                known = any(one.id == trigger for one in self.registry.active)
                with self._lock:
                    # Triggers that are one too many share a place.
                    self._pictures[trigger if known else "dropped"] += 1
                    if self._pictures[trigger if known else "dropped"] > PICTURES_PER_TRIGGER:
                        return None
            return as_png(image)
        # The input itself decides, so that all workers come to the same.
        chance = int((name or fingerprint(image))[:8], 16) / 2**32
        return as_png(image) if chance < self.settings.keep else None

    def _reply(self, reply: Reply, answers: Answers, seen: Sequence[Seen], action: Action, readable: bool) -> Reply:
        """Return what the client gets."""
        if action == Action.BLOCKED and seen[0].verdict == Verdict.ERROR:
            return NOT_SCREENED
        if self.settings.mode == "observe":
            return reply
        if action == Action.BLOCKED:
            rows = [str(row) for row, one in enumerate(seen) if one.verdict == Verdict.TROJANED]
            return refusal(422, f"trojaned: input {', '.join(rows)}")
        if not readable:
            return reply
        labels = np.array(
            [
                label if one.corrected is None else one.corrected
                for label, one in zip(answers.labels.tolist(), seen, strict=True)
            ],
            dtype=np.int64,
        )
        outputs = self.guarded.corrected(reply, answers, labels) if action == Action.CORRECTED else {}
        return rewritten(reply, outputs, parameters(seen))


def parameters(seen: Sequence[Seen]) -> dict[str, str | float]:
    """Return what an answer says of its inputs; of several inputs, values are joined by commas, in their order."""
    return {
        "foretaste_verdict": ",".join(one.verdict for one in seen),
        "foretaste_score": ",".join("" if one.score is None else f"{one.score:.4g}" for one in seen),
        "foretaste_trigger": ",".join(one.trigger for one in seen),
    }


def describe(error: Exception) -> str:
    """Return an error for the log, on one line."""
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:500]


def prepare(settings: Settings, announce: Callable[[str], None] = lambda line: None) -> None:
    """Do once what all workers rely on: make the tables, calibrate, and take up the triggers of ``registry``.

    Args:
        settings: what the gateway is told.
        announce: called with a line for each thing that is done.

    Raises:
        UsageError: the settings name what there is not.
        ForetasteError: the model, the clean images or the records cannot be used.
    """
    store = Store(settings.database_url)
    try:
        store.migrate()
        classifier = open_model(settings)
        clean = read_clean(settings, classifier)
        announce(f"calibrating {settings.method} on {len(clean)} clean images")
        screener = calibrate(settings, classifier, clean, on_doubt=announce)
        if settings.registry is not None:
            if reconstructing(screener) is None:
                raise ForetasteError(f"--registry does not apply to --method {settings.method}")
            known = Registry.load(settings.registry)
            store.publish(list(known), {}, "file", settings.most_triggers)
            announce(f"{len(known)} triggers known from {settings.registry}")
    finally:
        store.close()
