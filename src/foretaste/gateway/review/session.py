"""Access to the review page: by the token, sent as a bearer token or once in a form."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

COOKIE = "foretaste_session"
LIFETIME = 12 * 3600
"""Seconds that a session lasts."""


@dataclass(frozen=True)
class Session:
    """Somebody who is logged in.

    Attributes:
        csrf: what forms must bring along, so that no other site can send them; empty for a bearer token, which no
            browser sends by itself.
    """

    csrf: str


class Sessions:
    """Sessions without memory: all workers with the same token know them, and they survive a restart.

    Args:
        token: the review token.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"foretaste review session\0" + self._token).digest()

    def is_token(self, given: str) -> bool:
        """Return whether this is the token, in a time that does not tell how much of it is right."""
        return hmac.compare_digest(given.encode(), self._token)

    def begin(self) -> str:
        """Return the cookie of a new session."""
        content = f"{int(time.time()) + LIFETIME}.{secrets.token_hex(16)}"
        return f"{content}.{self._sign(content)}"

    def find(self, authorization: str, cookie: str) -> Session | None:
        """Return the session that a request belongs to, by its ``Authorization`` header or its cookie."""
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return Session("")
        content, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(content).encode()):
            return None
        if int(content.partition(".")[0]) < time.time():
            return None
        return Session(self._sign(f"form {content}"))

    def allows(self, session: Session, csrf: str) -> bool:
        """Return whether a form was sent from a page of this session."""
        return hmac.compare_digest(session.csrf.encode(), csrf.encode()) or not session.csrf

    def _sign(self, content: str) -> str:
        return hmac.new(self._key, content.encode(), hashlib.sha256).hexdigest()
