"""A Python function as a classifier."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.classifiers.answers import read_answers
from foretaste.classifiers.batches import batch_size, check_images, in_batches
from foretaste.classifiers.classifier import Answers
from foretaste.classifiers.preprocessing import Preprocessing
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images
from foretaste.sanitising import described

MOST_IMAGES = 256
"""Images in a call."""

PLACE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
"""``module:attribute``, each with dots or without."""


class PythonCallable:
    """Asks a function, in one thread at a time, because it need not be safe to use from several.

    What the function prints goes to standard error, because standard output belongs to the results.

    Args:
        function: takes ``uint8 (N, H, W, C)``, or ``float32`` where there is preprocessing, a copy that it may change,
            and returns ``(N,)`` integer labels or ``(N, K)`` floating-point scores, as an array or as what NumPy can
            make one of.
        name: what it is called in messages.
        preprocessing: what is to be done to the pixels before; None gives them as they are.
        classes: the K class names, which a function has none of.
    """

    def __init__(
        self,
        function: Callable[[NDArray[Any]], Any],
        name: str = "the function",
        *,
        preprocessing: Preprocessing | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        self._function, self._name = function, name
        self._preprocessing, self._classes = preprocessing, classes
        self._lock = Lock()

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The K class names that were given; a function names none."""
        return self._classes

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to the pixels; None if the function gets them as they are."""
        return self._preprocessing

    def preprocessed(self, preprocessing: Preprocessing) -> PythonCallable:
        """Return the same function with other preprocessing."""
        return PythonCallable(self._function, self._name, preprocessing=preprocessing, classes=self._classes)

    @property
    def sample_shape(self) -> None:
        """A function does not say what it takes."""

    def classify(self, images: Images) -> Answers:
        """Answer for raw images ``uint8 (N, H, W, C)``, any N ≥ 0, in their order.

        Raises:
            UsageError: these are no images.
            ForetasteError: the function raises, or returns what is no answer.
        """
        check_images(images, None, self._name)
        return in_batches(images, batch_size(images, MOST_IMAGES), self._ask)

    def _ask(self, images: Images) -> Answers:
        given = np.array(images) if self._preprocessing is None else self._preprocessing.apply(images)
        try:
            with self._lock, redirect_stdout(sys.stderr):
                output = np.asarray(self._function(given))
        except SystemExit as error:
            raise ForetasteError(f"{self._name} ends the program ({error.code}) when it is asked") from error
        except Exception as error:  # whatever somebody's function may raise
            raise ForetasteError(f"{self._name} fails on {len(images)} images: {described(error)}") from error
        return read_answers(output, len(images), self._name, self._classes)


def load_callable(
    place: str, *, preprocessing: Preprocessing | None = None, classes: tuple[str, ...] | None = None
) -> PythonCallable:
    """Return the function at ``module:attribute``, with the current folder searched for modules too.

    Importing a module runs it: name only what you trust. It sees no command line, and what it prints goes to standard
    error. ``PythonCallable`` says what the options mean.

    Raises:
        UsageError: there is no such module or attribute, or it cannot be called.
        ForetasteError: the module cannot be imported.
    """
    if not PLACE.fullmatch(place):
        raise UsageError(f"{place} is not of the form module:attribute")
    module, _, attribute = place.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with guest(module):
            found: Any = importlib.import_module(module)
    except SystemExit as error:
        raise ForetasteError(
            f"{module} ends the program ({error.code}) when it is imported; keep what is not the model out of it"
        ) from error
    except Exception as error:  # whatever somebody's module may raise
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise UsageError(f"there is no Python module {error.name}, neither installed nor in {here}") from None
        raise ForetasteError(f"cannot import {module}: {described(error)}") from error
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise UsageError(f"the Python module {module} has no {attribute}") from None
    if not callable(found):
        raise UsageError(f"{place} is {type(found).__name__} and cannot be called")
    return PythonCallable(found, place, preprocessing=preprocessing, classes=classes)


@contextmanager
def guest(module: str) -> Iterator[None]:
    """Let somebody's module be imported: it finds no arguments to parse, and prints to standard error."""
    arguments = sys.argv
    sys.argv = [module]
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.argv = arguments
