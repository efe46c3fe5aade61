"""What comes out of a classifier: labels or scores, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.classifiers.classifier import Answers
from foretaste.errors import ForetasteError

MOST_CLASSES = 2**20
"""A label beyond this is garbage, and what counts labels by class must not be made to fill the memory."""


def read_answers(output: NDArray[Any], n: int, source: str, classes: tuple[str, ...] | None = None) -> Answers:
    """Return what a model's output says of n images.

    Args:
        output: ``(N, K)`` floating-point scores, K ≥ 2; ``(N, 1)`` probabilities of the second of two classes, each
            in [0, 1]; or ``(N,)`` or ``(N, 1)`` integer labels.
        n: images that were asked about.
        source: what the model is called in messages.
        classes: the class names, if known.

    Raises:
        ForetasteError: the output is neither, has another length, or holds NaN, infinity or a label that is no class.
    """
    most = MOST_CLASSES if classes is None else len(classes)
    if output.dtype.kind in "iu" and output.shape in ((n,), (n, 1)):
        outside = output[(output < 0) | (output >= most)]
        if outside.size:
            raise ForetasteError(f"{source} answers with label {outside[0]}, which is outside its {most} classes")
        return Answers(output.reshape(n).astype(np.int64))
    if output.dtype.kind == "f" and output.shape == (n, 1) and n:
        if not ((output >= 0) & (output <= 1)).all():  # NaN, too
            raise ForetasteError(
                f"{source} answers with one number per image, which must be a probability in [0, 1]; "
                "export it with its sigmoid, or with one score per class"
            )
        output = np.concatenate([1 - output, output], axis=1)
    if output.dtype.kind == "f" and output.ndim == 2 and len(output) == n and output.shape[1] >= 2:
        if classes is not None and output.shape[1] != most:
            raise ForetasteError(f"{source} answers with {output.shape[1]} scores per image but has {most} classes")
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
            scores = output.astype(np.float32)
        if not np.isfinite(scores).all():
            raise ForetasteError(f"{source} answers with scores that are NaN or infinite")
        return Answers(scores.argmax(axis=1).astype(np.int64), scores)
    raise ForetasteError(
        f"{source} answers {n} images with {output.dtype} {output.shape}, "
        "which is neither (N,) integer labels nor (N, K) floating-point scores"
        + ("; names of classes are not understood" if output.dtype.kind in "OSU" else "")
    )
