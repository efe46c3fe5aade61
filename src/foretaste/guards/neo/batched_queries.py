"""Many searches asked together: each is written as if it were alone, and their questions go out in one batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from foretaste.classifiers.classifier import Classifier
from foretaste.samples import Images, Labels

T = TypeVar("T")

Queries = Generator[Images, Labels, T]
"""A search: it yields images ``uint8 (n, H, W, C)``, n ≥ 1, is sent their labels ``int64 (n,)``, and returns a T."""

AT_ONCE = 256
"""Searches that are under way at the same time; bounds the memory that their questions take."""


@dataclass(frozen=True)
class Asked(Generic[T]):
    """What a search returned, and the questions that it cost."""

    result: T
    queries: int


def ask(
    searches: Sequence[Callable[[], Queries[T]]],
    classifier: Classifier,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[Asked[T]]:
    """Run searches side by side, so that each call to the classifier holds the questions of all that are under way.

    Args:
        searches: functions that each begin a search; a search begins when there is room for it.
        classifier: what to ask.
        on_done: called after each call with the number of searches that have ended.

    Returns:
        One result per search, in their order.

    Raises:
        ForetasteError: the classifier fails.
    """
    results: list[Asked[T] | None] = [None] * len(searches)
    queries = [0] * len(searches)
    under_way: dict[int, Queries[T]] = {}
    pending: dict[int, Images] = {}
    ended, begun = 0, 0

    def advance(number: int, answers: Labels | None) -> None:
        nonlocal ended
        search = under_way[number]
        try:
            pending[number] = next(search) if answers is None else search.send(answers)
        except StopIteration as stop:
            results[number] = Asked(stop.value, queries[number])
            del under_way[number]
            ended += 1

    while ended < len(searches):
        while begun < len(searches) and len(under_way) < AT_ONCE:
            under_way[begun] = searches[begun]()
            advance(begun, None)
            begun += 1
        if pending:
            asked, images = list(pending), np.concatenate(list(pending.values()))
            sizes = [len(pending[number]) for number in asked]
            pending.clear()
            answers = np.split(classifier.classify(images).labels, np.cumsum(sizes)[:-1])
            for number, size, answer in zip(asked, sizes, answers, strict=True):
                queries[number] += size
                advance(number, answer)
        on_done(ended)
    return [result for result in results if result is not None]
