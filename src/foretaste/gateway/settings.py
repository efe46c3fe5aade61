"""What the gateway is told at its start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from foretaste.classifiers import Preprocessing
from foretaste.errors import UsageError

Mode = Literal["enforce", "block", "observe"]
OnError = Literal["pass", "block"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a gateway; the command line, the environment and the TOML file have the same names.

    Attributes:
        model: a model that the gateway runs itself (whatever ``open_classifier`` takes but an endpoint), or None.
        upstream: ``http(s)://host/v2/models/NAME`` of a model server to stand in front of, or None. Exactly one of
            ``model`` and ``upstream`` is given.
        preprocessing: what is done to the pixels before a local model gets them; None leaves it to the model.
        classes: names of a local model's classes in its order; None if it states them or they are not known.
        name: what a local model is called in the protocol.
        clean: source of the trusted images that the guard is calibrated with.
        resize: height and width in pixels that the clean images are scaled to, or None.
        method: name of the guard.
        hyperparameters: fields of the guard that are not to have their default.
        false_alarm_rate: share of clean inputs that may be called trojaned, in (0, 1).
        seed: where all random numbers come from, ≥ 0.
        mode: ``enforce`` answers a trojaned input with the corrected label, ``block`` with an error, ``observe`` as the
            model did.
        on_error: what happens to a request that cannot be screened or recorded: ``pass`` gives the model's answer,
            ``block`` an error.
        budget_ms: milliseconds that a request waits for the search of its inputs, ≥ 0; the search goes on without it
            afterwards. None is 0 for guards that recognise known triggers without a search, so that only the first
            requests with a trigger get through, and 1000 for the others, which else would stop nothing.
        queue: inputs that may wait for their search, ≥ 1; those beyond are recorded as not searched. At 3 kB an input
            4,096 of them are 12 MB.
        registry: a folder of triggers that are known from ``guard learn`` or ``guard scan``, or None.
        most_triggers: triggers that are kept, ≥ 1; those found beyond are counted and dropped, so that a client that
            sends ever new triggers cannot slow the recognition down without bound.
        state: the folder for the calibration, and for the records if ``database`` is None.
        database: an SQLAlchemy URL for records and triggers; None is an SQLite file in ``state``.
        keep: share of the inputs without a trigger whose picture is kept, too, in [0, 1].
        retain_days: days after which records are deleted, > 0; what a person has looked at stays.
        retain_mb: megabytes of records and pictures above which the oldest are deleted, > 0.
        host: address to listen on.
        port: port to listen on, in [0, 65535]; 0 lets the system choose.
        workers: processes that share the port, ≥ 1.
        review_token: bearer token of the review page; None makes one up and prints it.
        max_body_mb: megabytes that the body of a request may have, > 0.
        max_connections: connections that a worker holds at a time, ≥ 1.
        timeout: seconds for receiving a request's body, and for the model server's answer, > 0.

    Raises:
        UsageError: a setting is out of range, or not exactly one of ``model`` and ``upstream`` is given.
    """

    model: str | None = None
    upstream: str | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
    name: str = "model"
    clean: str
    resize: tuple[int, int] | None = None
    method: str = "neo"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    false_alarm_rate: float = 0.01
    seed: int = 0
    mode: Mode = "enforce"
    on_error: OnError = "pass"
    budget_ms: float | None = None
    queue: int = 4096
    registry: Path | None = None
    most_triggers: int = 256
    state: Path = Path("foretaste-gateway")
    database: str | None = None
    keep: float = 0.0
    retain_days: float = 30.0
    retain_mb: float = 1024.0
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    review_token: str | None = field(default=None, repr=False)
    max_body_mb: float = 32.0
    max_connections: int = 256
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if (self.model is None) == (self.upstream is None):
            raise UsageError("the gateway needs either --model or --upstream")
        if self.model is not None and "://" in self.model:
            raise UsageError(f"{self.model} is a server; give it with --upstream")
        if self.upstream is not None and (self.preprocessing is not None or self.classes is not None):
            raise UsageError(
                "--scale, --mean, --std, --channels and --class-names describe a --model; an --upstream gets what "
                "clients send"
            )
        for name, low, high in (
            ("keep", 0.0, 1.0),
            ("queue", 1, math.inf),
            ("most_triggers", 1, math.inf),
            ("port", 0, 65535),
            ("workers", 1, math.inf),
            ("max_connections", 1, math.inf),
            ("budget_ms", 0, math.inf),
        ):
            value = getattr(self, name)
            if value is not None and not (low <= value <= high and value < math.inf):
                raise UsageError(f"--{name.replace('_', '-')} must be at least {low:g}{upto(high)}, not {value:g}")
        for name in ("retain_days", "retain_mb", "max_body_mb", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} must be above 0, not {getattr(self, name):g}")
        for name, kind in (("mode", Mode), ("on_error", OnError)):
            if getattr(self, name) not in get_args(kind):
                raise UsageError(f"--{name.replace('_', '-')} must be one of {', '.join(get_args(kind))}")
        if self.review_token is not None and len(self.review_token) < 16:
            raise UsageError("the review token must have 16 characters or more")

    @property
    def max_body(self) -> int:
        """Bytes that the body of a request may have."""
        return int(self.max_body_mb * 2**20)

    @property
    def database_url(self) -> str:
        """Where the records are."""
        return self.database or f"sqlite:///{self.state.resolve() / 'records.sqlite'}"


def upto(high: float) -> str:
    """Return the end of "at least 0 and at most 1", nothing if there is no highest value."""
    return "" if math.isinf(high) else f" and at most {high:g}"
