"""An HTTP client for servers that are down for a moment, slow, rate-limited, or hostile."""

from __future__ import annotations

import email.utils
import os
import random
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import httpx

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.download import LOOPBACK
from foretaste.sanitising import described, shown

TOKEN = "FORETASTE_TOKEN"
"""The environment variable with the bearer token."""

PASSING = frozenset([429, 502, 503, 504])
"""Status codes that say: later."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the second attempt, doubled before each further one, and where that stops."""

LONGEST_RETRY_AFTER = 300.0
"""Longest wait, in seconds, that a server may ask for; longer ones are not waited for."""

MOST_BYTES = 64 * 2**20
"""The longest answer that is read, after decompression."""


@dataclass(frozen=True)
class Reply:
    """A server's answer, whole."""

    status: int
    headers: httpx.Headers
    body: bytes


class RetryingClient:
    """Sends requests, waits and tries again where that helps, and never reads more than it should.

    What is tried again: connections that fail, answers that take too long, and the status codes 429, 502, 503 and 504;
    after exponential back-off with jitter, or when ``Retry-After`` says. Redirects are not followed, so that no token
    goes elsewhere. Safe to use from several threads.

    Args:
        root: the address that paths are put after, without a slash at its end.
        token: sent as ``Authorization: Bearer``, never shown or logged; None takes ``$FORETASTE_TOKEN``, if it is set.
        timeout: seconds for a whole answer, > 0.
        attempts: how often a request is sent at most, ≥ 1.
        queries_per_second: the most queries to send, on average, > 0; None for no limit.

    Raises:
        UsageError: an argument is out of range, or the token would travel unencrypted.
    """

    def __init__(
        self,
        root: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        attempts: int = 5,
        queries_per_second: float | None = None,
    ) -> None:
        # Written so that NaN, too, is out of range.
        if not 0 < timeout < float("inf"):
            raise UsageError(f"the timeout must be above 0 seconds, not {timeout:g}")
        if attempts < 1:
            raise UsageError(f"a request needs 1 attempt or more, not {attempts}")
        if queries_per_second is not None and not queries_per_second > 0:
            raise UsageError(f"the queries per second must be above 0, not {queries_per_second:g}")
        self._root, self._timeout, self._attempts = root, timeout, attempts
        self._seconds_per_query = 0.0 if queries_per_second is None else 1 / queries_per_second
        self._next_query = time.monotonic()
        self._lock = Lock()
        self._client = httpx.Client(
            # A few compressed bytes could stand for gigabytes.
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                **_authorization(root, token or os.environ.get(TOKEN)),
            },
            timeout=timeout,
        )
        weakref.finalize(self, self._client.close)

    def request(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        queries: int = 0,
    ) -> Reply:
        """Send a request and return the answer, of whatever status but those that pass.

        Args:
            method: the HTTP method.
            path: what goes after the root.
            content: the body.
            headers: further headers.
            queries: what it counts for in the queries per second.

        Raises:
            ForetasteError: there is still no answer after the last attempt, or none that can be read.
        """
        trouble = ""
        for attempt in range(self._attempts):
            self._take_turn(queries)
            pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
            try:
                reply = self._send(method, path, content, headers or {})
            except httpx.TimeoutException:
                trouble = f"there was no whole answer within {self._timeout:g} seconds"
            except httpx.TransportError as error:
                trouble = described(error)
            except httpx.HTTPError as error:
                raise ForetasteError(f"{self._root} sends what cannot be read: {described(error)}") from None
            else:
                if reply.status not in PASSING:
                    return reply
                trouble = f"it answers {reply.status} {httpx.codes.get_reason_phrase(reply.status)}"
                pause = max(pause, self._retry_after(reply))
            if attempt + 1 < self._attempts:
                time.sleep(pause)
        tries = "once" if self._attempts == 1 else f"{self._attempts} times"
        raise ForetasteError(f"{self._root} cannot be used now: {trouble} (tried {tries})")

    def _send(self, method: str, path: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        # httpx times single reads; this bounds their sum over the body, for servers that send a byte now and then.
        deadline = time.monotonic() + self._timeout
        body = bytearray()
        with self._client.stream(method, self._root + path, content=content, headers=dict(headers)) as answer:
            encoding = answer.headers.get("Content-Encoding", "identity")
            if encoding != "identity":
                raise ForetasteError(f"{self._root} compresses its answers ({shown(encoding)}), unasked")
            for piece in answer.iter_raw():
                body += piece
                if len(body) > MOST_BYTES:
                    raise ForetasteError(f"{self._root} sends an answer of more than {MOST_BYTES // 2**20} MiB")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("too slow", request=answer.request)
        return Reply(answer.status_code, answer.headers, bytes(body))

    def _take_turn(self, queries: int) -> None:
        """Wait until as many queries may be sent, and book them."""
        if not self._seconds_per_query:
            return
        with self._lock:
            turn = max(self._next_query, time.monotonic())
            self._next_query = turn + queries * self._seconds_per_query
        time.sleep(max(0.0, turn - time.monotonic()))

    def _retry_after(self, reply: Reply) -> float:
        """Return the seconds that the server asks to wait: 0 if it does not say."""
        text = reply.headers.get("Retry-After", "")
        if text.isascii() and text.isdigit():
            seconds = float(text)
        else:
            try:
                seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, OverflowError):
                return 0.0
        if seconds > LONGEST_RETRY_AFTER:
            raise ForetasteError(
                f"{self._root} answers {reply.status} and asks to wait {seconds:.0f} seconds; try later"
            )
        return seconds


def _authorization(root: str, token: str | None) -> dict[str, str]:
    if not token:
        return {}
    # httpx would show a token that it cannot send in its message.
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError("the bearer token has characters that no token may have, such as spaces or line breaks")
    url = httpx.URL(root)
    if url.scheme != "https" and url.host not in LOOPBACK:
        raise UsageError(f"the bearer token would travel unencrypted to {root}; use https, or unset {TOKEN}")
    return {"Authorization": f"Bearer {token}"}
