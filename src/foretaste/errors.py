"""The ways a run can fail, each with the exit code that the command line gives it."""

from __future__ import annotations

from collections.abc import Sequence


class ForetasteError(Exception):
    """The run cannot go on: one sentence that names what is wrong and, where it helps, what to do.

    The command line prints it without a traceback and ends with ``exit_code``.

    Args:
        sentence: what is wrong.
        details: one line for each of several errors in one file, shown below the sentence.
    """

    exit_code = 2

    def __init__(self, sentence: str, details: Sequence[str] = ()) -> None:
        super().__init__("\n".join([sentence, *details]))
        self.sentence = sentence
        self.details = tuple(details)


class EmptyError(ForetasteError):
    """A source is in order and holds no sample at all, as ``cleanse`` leaves its quarantine where it found nothing."""


class UsageError(ForetasteError):
    """What was asked for makes no sense (an unknown name, a value out of range, an option that does not apply)."""

    exit_code = 4
