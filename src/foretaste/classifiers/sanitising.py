"""Text from elsewhere (servers, model files, other people's code) in messages to the user."""

LONGEST = 200
"""Characters, so that a message stays a sentence."""


def shown(text: str) -> str:
    """Return text fit for a terminal: one line, not long, nothing that controls it."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 5 * LONGEST]).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def described(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    first = str(error).strip().partition("\n")[0]
    return shown(f"{type(error).__name__}: {first}" if first else type(error).__name__)
