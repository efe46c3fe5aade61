"""Text from elsewhere (data sets, servers, model files, other people's code) in messages to the user."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 200
"""Characters, so that a message stays a sentence."""

UNSAFE = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])
"""Unicode categories that may control a terminal, reorder a line or break it, or stand for nothing."""

JOINERS = frozenset("\u200c\u200d")
"""Format characters that some scripts, and joined emoji, are written with; they control nothing."""


def printable(text: str) -> str:
    r"""Return text fit for one line of a terminal: what controls it, line breaks included, becomes an escape, ``\x1b``.

    Spaces and letters of all scripts stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        sign if unicodedata.category(sign) not in UNSAFE or sign in JOINERS else ascii(sign)[1:-1] for sign in text
    )


def shown(text: str) -> str:
    """Return text fit for a terminal: one line, not long, nothing that controls it.

    Of a long text the beginning and the end are kept: libraries put the reason of a failure last.
    """
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 50 * LONGEST]).split())
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[: half - 1]}…{line[-half:]}"


def public_address(text: str) -> str:
    """Return text without what may be secret in its addresses: user, password, and the query, perhaps a signature."""
    return re.sub(r"\b([a-z][a-z0-9+.-]*://)(?:[^\s/@?#]*@)?([^\s?#]*)[?#]?\S*", r"\1\2", text, flags=re.IGNORECASE)


def described(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    first = first_line(error)
    return shown(f"{type(error).__name__}: {first}" if first else type(error).__name__)


def reason(error: BaseException) -> str:
    """Return why a library failed: what the system says, or the first line of what the library says."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if callable(details := getattr(error, "errors", None)):  # pydantic's text starts with a count, not with the reason
        first = details()[0]
        return shown(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    return shown(first_line(error)) or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says anything."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
