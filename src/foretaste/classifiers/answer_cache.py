"""Answers kept on disk, so that work which was stopped asks nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from foretaste.classifiers.batches import in_batches, join
from foretaste.classifiers.classifier import Answers, Classifier
from foretaste.classifiers.counting import digest
from foretaste.classifiers.forwarding import Forwarding
from foretaste.io.atomic import atomic_json, writing
from foretaste.samples import Images

AT_ONCE = 512
"""Images that are asked about before their answers are written: what may be asked twice after a failure."""

ASKED_AGAIN = 32
"""Images that a model is asked about once more, to see that it is still the one that answered before."""


class AnswerCache(Forwarding):
    """Asks another classifier, and writes down each answer before it is used.

    Work that asks the same questions in the same order comes to the same end, however often it was stopped on the way:
    what was answered in an earlier run is not asked again. The answers are kept for one model; if it has another
    identity, or answers the first questions otherwise, they are forgotten. Safe to use from several threads if the
    classifier is.

    Args:
        classifier: what to ask.
        folder: an existing folder for ``answers.json`` and ``answers.bin``.
        identity: what tells the model from others.

    Raises:
        ForetasteError: the folder cannot be written.
    """

    def __init__(self, classifier: Classifier, folder: Path, identity: str) -> None:
        super().__init__(classifier)
        self._identity = identity
        self._head, self._body = folder / "answers.json", folder / "answers.bin"
        self._lock = Lock()
        self._n_scores: int | None = None
        self._earlier = self._read()
        self._rows: dict[bytes, int] = {key: row for row, key in enumerate(self._earlier["key"].tolist())}
        self._checked = False
        self._kept = len(self._earlier)
        self._saved = 0.0

    @property
    def kept(self) -> int:
        """How many answers are on disk."""
        return self._kept

    @property
    def saved_seconds(self) -> float:
        """How long the answers that were not asked for again took when they were."""
        return self._saved

    def classify(self, images: Images) -> Answers:
        """Answer for raw images ``uint8 (N, H, W, C)``, any N ≥ 0, in their order.

        Raises:
            ForetasteError: as the classifier does, or the answers cannot be written.
        """
        return in_batches(images, AT_ONCE, self._answer) if len(images) else self._classifier.classify(images)

    def _answer(self, images: Images) -> Answers:
        keys = [digest(image) for image in images]
        self._check(images, keys)
        rows = np.array([self._rows.get(key, -1) for key in keys], dtype=np.intp)
        new, old = np.flatnonzero(rows < 0), np.flatnonzero(rows >= 0)
        if not old.size:
            return self._ask(images, keys)
        known = self._earlier[rows[old]]
        self._saved += float(known["seconds"].sum())
        answers = Answers(
            known["label"].astype(np.int64), known["scores"].astype(np.float32) if self._n_scores else None
        )
        if not new.size:
            return answers
        answers = join([answers, self._ask(images[new], [keys[index] for index in new])])
        order = np.argsort(np.concatenate([old, new]))
        return Answers(answers.labels[order], None if answers.scores is None else answers.scores[order])

    def _ask(self, images: Images, keys: list[bytes]) -> Answers:
        """Ask the model and write down what it says."""
        start = time.perf_counter()
        answers = self._classifier.classify(images)
        n_scores = 0 if answers.scores is None else answers.scores.shape[1]
        records = np.zeros(len(keys), dtype=record_type(n_scores))
        records["key"] = np.frombuffer(b"".join(keys), dtype="V16")
        records["label"], records["seconds"] = answers.labels, (time.perf_counter() - start) / len(keys)
        if answers.scores is not None:
            records["scores"] = answers.scores
        with self._lock:
            if self._n_scores != n_scores:
                self._forget()
                self._n_scores = n_scores
                atomic_json(self._head, {"identity": self._identity, "n_scores": n_scores})
            with writing(self._body), self._body.open("ab") as file:
                file.write(records.tobytes())
            self._kept += len(records)
        return answers

    def _check(self, images: Images, keys: list[bytes]) -> None:
        """Forget everything if the model does not say again what it said before."""
        with self._lock:
            self._check_once(images, keys)

    def _check_once(self, images: Images, keys: list[bytes]) -> None:
        known = [] if self._checked else [index for index, key in enumerate(keys) if key in self._rows][:ASKED_AGAIN]
        if not known:
            return
        told = self._earlier["label"][[self._rows[keys[index]] for index in known]]
        if not np.array_equal(self._classifier.classify(images[known]).labels, told):
            self._rows.clear()
            self._forget()
        self._checked = True

    def _forget(self) -> None:
        with writing(self._body):
            self._head.unlink(missing_ok=True)
            self._body.unlink(missing_ok=True)
        self._n_scores, self._kept = None, 0

    def _read(self) -> NDArray[np.void]:
        """Return what an earlier run wrote down about this model, less what it was killed over."""
        try:
            head = json.loads(self._head.read_bytes())
            if head["identity"] == self._identity:
                self._n_scores = int(head["n_scores"])
                record = record_type(self._n_scores)
                whole = self._body.stat().st_size // record.itemsize
                os.truncate(self._body, whole * record.itemsize)
                if whole:
                    return np.memmap(self._body, dtype=record, mode="r", shape=(whole,))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self._forget()
        return np.empty(0, dtype=record_type(0))


def identity(model: str) -> str:
    """Return what tells a model from others: its name and, of a file or an imported module, the contents."""
    module = sys.modules.get(model.partition(":")[0])
    path = Path(getattr(module, "__file__", None) or model)
    if not path.is_file():
        return model
    with path.open("rb") as file:
        return f"{model} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def record_type(n_scores: int) -> np.dtype[np.void]:
    """Return how one answer lies in the file; without scores, ``n_scores`` is 0."""
    return np.dtype([("key", "V16"), ("label", "<i8"), ("seconds", "<f4"), ("scores", "<f4", (n_scores,))])
