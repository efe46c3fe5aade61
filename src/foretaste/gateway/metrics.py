"""What Prometheus is told (https://prometheus.io/docs/practices/naming)."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus-client shares metrics between processes; read when it is imported."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histograms' buckets."""


class Metrics:
    """The metrics of one worker.

    Attributes:
        requests: requests by ``route`` and ``status``.
        inputs: screened inputs by ``verdict``, as it was when the answer was sent.
        revised: inputs whose verdict became "trojaned" after the answer.
        unscreened: requests that went through untouched, by ``reason``.
        queries: images that the model was asked about for the guard, by ``purpose``.
        errors: failures by ``part``: "screening", "records", "search", "upstream".
        seconds: time of requests for inference by ``part``: "model", "screening", "records" and "all".
        search_seconds: time of a search of up to 64 inputs.
        waiting: inputs that wait for their search.
        not_searched: inputs whose search was left out because too many were waiting.
        late: inputs that were answered before their search had ended.
        triggers: triggers in force.
        triggers_dropped: triggers that were found when there were ``most_triggers`` in force.
        above_threshold: share of the latest 1,000 searched inputs without a known trigger that scored above the
            threshold. Far above ``promised``, the inputs are no longer like the clean set.
        promised: share of clean inputs that the guard promised to let score above the threshold.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "foretaste_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.inputs = Counter(
            "foretaste_inputs", "Screened inputs by verdict, as sent.", ["verdict"], registry=registry
        )
        self.revised = Counter("foretaste_revised", "Inputs found trojaned after the answer.", registry=registry)
        self.unscreened = Counter(
            "foretaste_unscreened", "Requests that went through untouched.", ["reason"], registry=registry
        )
        self.queries = Counter(
            "foretaste_queries", "Images that the model was asked about for the guard.", ["purpose"], registry=registry
        )
        self.errors = Counter("foretaste_errors", "Failures by part.", ["part"], registry=registry)
        self.seconds = Histogram(
            "foretaste_request_seconds",
            "Time of requests for inference by part.",
            ["part"],
            buckets=SECONDS,
            registry=registry,
        )
        self.search_seconds = Histogram(
            "foretaste_search_seconds", "Time of a search of up to 64 inputs.", buckets=SECONDS, registry=registry
        )
        self.waiting = Gauge(
            "foretaste_search_waiting",
            "Inputs that wait for their search.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.not_searched = Counter(
            "foretaste_not_searched", "Inputs whose search was left out: too many waited.", registry=registry
        )
        self.late = Counter(
            "foretaste_late_searches", "Inputs that were answered before their search had ended.", registry=registry
        )
        self.triggers = Gauge(
            "foretaste_triggers", "Triggers in force.", multiprocess_mode="livemostrecent", registry=registry
        )
        self.triggers_dropped = Counter(
            "foretaste_triggers_dropped", "Triggers found that were one too many.", registry=registry
        )
        self.above_threshold = Gauge(
            "foretaste_above_threshold_share",
            "Share of recent inputs without a known trigger that scored above the threshold.",
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self.promised = Gauge(
            "foretaste_promised_share",
            "Share of clean inputs that may score above the threshold.",
            multiprocess_mode="livemostrecent",
            registry=registry,
        )

    def exposition(self) -> bytes:
        """Return the metrics of all workers in Prometheus's text format."""
        folder = os.environ.get(SHARED)
        if folder is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, path=str(Path(folder)))  # type: ignore[no-untyped-call]
        return generate_latest(together)
