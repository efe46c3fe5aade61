"""What goes into a classifier: images of the shape it takes, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from foretaste.classifiers.classifier import Answers
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images

MOST_PIXELS = 2**20
"""A batch has at most this many, so that what a model computes on the way fits into memory: 1,024 images of 32×32."""


def check_images(images: Images, shape: tuple[int | None, ...] | None, source: str) -> None:
    """Refuse images that a model does not take.

    Args:
        images: what should be ``uint8 (N, H, W, C)``.
        shape: H, W and C that the model takes, None where any will do.
        source: what the model is called in messages.

    Raises:
        UsageError: they are no images, or of another shape.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UsageError(f"{source} classifies images, uint8 (N, H, W, C), not {images.dtype} {images.shape}")
    if shape is not None and any(want not in (None, have) for want, have in zip(shape, images.shape[1:], strict=True)):
        raise UsageError(
            f"{source} takes images of {'×'.join('any' if want is None else str(want) for want in shape)} "
            f"(height × width × channels), not {'×'.join(map(str, images.shape[1:]))}"
        )


def batch_size(images: Images, limit: int) -> int:
    """Return how many such images ``(N, H, W, C)`` go into one batch: at least one, at most ``limit``."""
    return most_at_once(images.shape[1:], limit)


def most_at_once(shape: tuple[int, ...], limit: int) -> int:
    """Return how many images of a shape ``(H, W, C)`` go into one batch: at least one, at most ``limit``."""
    return max(1, min(limit, MOST_PIXELS // max(1, shape[0] * shape[1])))


def in_batches(images: Images, size: int, ask: Callable[[Images], Answers]) -> Answers:
    """Ask for ``size`` images at a time and join the answers; images may be memory-mapped.

    Raises:
        ForetasteError: as for ``join``.
    """
    return join([ask(images[start : start + size]) for start in range(0, len(images), size)])


def join(parts: Sequence[Answers]) -> Answers:
    """Join answers in order; of no answers there are no scores, because nobody has said how many classes there are.

    Raises:
        ForetasteError: only some parts have scores, or they have them for another number of classes.
    """
    if not parts:
        return Answers(np.empty(0, dtype=np.int64))
    labels = np.concatenate([part.labels for part in parts])
    scores = [part.scores for part in parts if part.scores is not None]
    if not scores:
        return Answers(labels)
    if len(scores) < len(parts) or len({part.shape[1] for part in scores}) > 1:
        raise ForetasteError("the classifier does not give every image a score for each of the same classes")
    return Answers(labels, np.concatenate(scores))
