"""Counted questions, and none asked twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from foretaste.classifiers.batches import check_images, in_batches, join
from foretaste.classifiers.classifier import Answers, Classifier
from foretaste.classifiers.forwarding import Forwarding
from foretaste.errors import ForetasteError
from foretaste.samples import Images, Mask

REMEMBERED = 2**16
"""Images whose answers are kept."""

AT_ONCE = 4096
"""Images that are looked at in one piece, which bounds the memory for a set that is memory-mapped."""


@dataclass(frozen=True)
class Place:
    """Where an image's answer is, or will be: a row of the answers to one call."""

    call: Future[Answers]
    row: int


class Counted(Forwarding):
    """Asks another classifier, counts the questions, and asks identical images once.

    The answers to the latest images are kept; a question that another thread is asking already is waited for, not
    asked again. As safe to use from several threads as the classifier is.

    Args:
        classifier: what to ask; the same image must always get the same answer.
        remembered: images whose answers are kept, ≥ 0.
    """

    def __init__(self, classifier: Classifier, remembered: int = REMEMBERED) -> None:
        super().__init__(classifier)
        self._remembered = remembered
        self._known: OrderedDict[bytes, Place] = OrderedDict()
        self._queries = 0
        self._lock = Lock()

    @property
    def queries(self) -> int:
        """How many images the classifier was asked about, those it failed on included."""
        return self._queries

    def classify(self, images: Images) -> Answers:
        """Answer for raw images ``uint8 (N, H, W, C)``, any N ≥ 0, in their order.

        Raises:
            ForetasteError: as the classifier does.
        """
        return self.ask(images)[0]

    def remember(self, images: Images, answers: Answers) -> None:
        """Note what the classifier said of images ``uint8 (N, H, W, C)`` that somebody else asked it about."""
        call: Future[Answers] = Future()
        call.set_result(answers)
        with self._lock:
            for row, image in enumerate(images):
                key = digest(image)
                self._known[key] = Place(call, row)
                self._known.move_to_end(key)
            while len(self._known) > self._remembered:
                self._known.popitem(last=False)

    def ask(self, images: Images) -> tuple[Answers, Mask]:
        """Answer as ``classify`` does, and say which images cost a query: ``bool (N,)``.

        Raises:
            UsageError: these are no images.
            ForetasteError: as the classifier does.
        """
        check_images(images, None, "the classifier")
        if len(images) == 0:
            return self._classifier.classify(images), np.zeros(0, dtype=np.bool_)
        asked: list[Mask] = []

        def piece(some: Images) -> Answers:
            answers, new = self._ask(some)
            asked.append(new)
            return answers

        return in_batches(images, AT_ONCE, piece), np.concatenate(asked)

    def _ask(self, images: Images) -> tuple[Answers, Mask]:
        keys = [digest(image) for image in images]
        call: Future[Answers] = Future()
        places: dict[bytes, Place] = {}
        new: dict[bytes, int] = {}
        with self._lock:
            for index, key in enumerate(keys):
                if key not in places:
                    if key in self._known:
                        self._known.move_to_end(key)
                    else:
                        self._known[key] = Place(call, len(new))
                        new[key] = index
                    places[key] = self._known[key]
            self._queries += len(new)
            while len(self._known) > self._remembered:
                self._known.popitem(last=False)
        rows = np.fromiter(new.values(), dtype=np.intp)
        if new:
            self._settle(call, images, rows, new)
        mask = np.zeros(len(images), dtype=np.bool_)
        mask[rows] = True
        return gather([places[key] for key in keys]), mask

    def _settle(self, call: Future[Answers], images: Images, rows: NDArray[np.intp], keys: dict[bytes, int]) -> None:
        """Ask about some of the images, and tell the callers that wait; a question that failed is forgotten."""
        try:
            answers = self._classifier.classify(images[rows])
            if len(answers) != len(rows):
                raise ForetasteError(f"the classifier gave {len(answers)} answers for {len(rows)} images")
        except BaseException as error:
            with self._lock:
                for key in keys:
                    if key in self._known and self._known[key].call is call:
                        del self._known[key]
            call.set_exception(error)
            raise
        call.set_result(answers)


def digest(image: Images) -> bytes:
    """Return what tells one image ``uint8 (H, W, C)`` from every other."""
    return hashlib.blake2b(image.tobytes(), digest_size=16, salt=np.array(image.shape, dtype="<u4").tobytes()).digest()


def gather(places: list[Place]) -> Answers:
    """Return the answers at these places, waiting for those that are still to come."""
    parts: list[Answers] = []
    for place in places:
        answers, row = place.call.result(), slice(place.row, place.row + 1)
        parts.append(Answers(answers.labels[row], None if answers.scores is None else answers.scores[row]))
    return join(parts)
