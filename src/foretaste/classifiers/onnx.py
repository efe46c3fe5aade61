"""An ONNX file as a classifier."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from foretaste.classifiers.answers import read_answers
from foretaste.classifiers.batches import batch_size, in_batches
from foretaste.classifiers.classifier import Answers
from foretaste.classifiers.layout import Declared, Layout, choose_output
from foretaste.classifiers.preprocessing import METADATA_KEY, Preprocessing, from_metadata
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images
from foretaste.sanitising import shown

TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}
"""onnxruntime's names for the types of numbers."""

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")

BATCHES = (1, 8, 32, 128, 512)
"""The batch sizes that are tried."""

SLOW = 0.25
"""A batch that takes longer, in seconds, ends the trying of larger ones."""


class OnnxModel:
    """Asks an ONNX model through onnxruntime; safe to use from several threads.

    It takes the files that ``foretaste train`` writes, and others with one image input and one output that answers:
    see ``Layout`` and ``choose_output``. Class names are read from the metadata key "classes", a JSON list, and what
    is to be done to the pixels from the key "preprocessing", a JSON object with fields of ``Preprocessing``. Only
    standard and onnxruntime's own operators are known; weights in a second file must lie in the model's folder.

    The first question starts a short race for the quickest number of threads and batch size.

    Args:
        path: the file.
        preprocessing: what is to be done to the pixels, whatever the file says; None leaves it to the file.
        classes: the K class names, whatever the file says; None leaves them to the file.

    Raises:
        UsageError: there is no such file, or the model takes the pixels as they are and ``preprocessing`` does not.
        ForetasteError: it is not ONNX, cannot be run, or does not take images and answer with scores or labels.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        preprocessing: Preprocessing | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        self._source = str(path)
        self._model = read_model(Path(path))
        session = self._open(threads=1)
        metadata = session.get_modelmeta().custom_metadata_map
        self._layout = Layout.of([_declared(one) for one in session.get_inputs()], self._source).preprocessed(
            preprocessing or from_metadata(metadata.get(METADATA_KEY), self._source)
        )
        self._output = choose_output([_declared(one) for one in session.get_outputs()], self._source).name
        self._classes = classes or read_classes(metadata.get("classes"))
        self._tuned: tuple[onnxruntime.InferenceSession, int] | None = None
        self._lock = Lock()

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The K class names if the file states them, or None."""
        return self._classes

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """``(H, W, C)`` of the images it takes if the file fixes them, or None."""
        return self._layout.sample_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to the pixels."""
        return self._layout.preprocessing

    def preprocessed(self, preprocessing: Preprocessing) -> OnnxModel:
        """Return the same model with other preprocessing.

        Raises:
            UsageError: the model takes the pixels as they are.
        """
        other = copy.copy(self)
        other._layout, other._lock = self._layout.preprocessed(preprocessing), Lock()
        return other

    def classify(self, images: Images) -> Answers:
        """Answer for raw images ``uint8 (N, H, W, C)``, any N ≥ 0, in their order.

        Raises:
            UsageError: the images are of another shape.
            ForetasteError: the model fails on them, or answers with what is no answer.
        """
        self._layout.check(images)
        if len(images) == 0:
            return in_batches(images, 1, lambda _: Answers(np.empty(0, dtype=np.int64)))
        with self._lock:
            if self._tuned is None:
                self._tuned = self._race(images)
            session, size = self._tuned

        def ask(batch: Images) -> Answers:
            packed = self._layout.pack(batch)
            answers = read_answers(self._run(session, packed), len(packed), self._source, self._classes)
            n = len(batch)
            return Answers(answers.labels[:n], None if answers.scores is None else answers.scores[:n])

        return in_batches(images, batch_size(images, size), ask)

    def _run(self, session: onnxruntime.InferenceSession, packed: NDArray[Any]) -> NDArray[Any]:
        try:
            [output] = session.run([self._output], {self._layout.name: packed})
        except Exception as error:  # onnxruntime's errors have no common base
            raise ForetasteError(f"{self._source} fails on images {packed.shape}: {_complaint(error)}") from None
        return np.asarray(output)

    def _race(self, images: Images) -> tuple[onnxruntime.InferenceSession, int]:
        """Return the session and the batch size that take the least time per image."""
        best = math.inf
        winner: tuple[onnxruntime.InferenceSession, int] | None = None
        for threads in _thread_counts():
            session = self._open(threads)
            for size in self._sizes(images):
                packed = self._layout.pack(images[np.arange(size) % len(images)])
                # The first run also sets the memory up.
                first, second = (self._seconds(session, packed) for _ in range(2))
                if min(first, second) / size < best:
                    best, winner = min(first, second) / size, (session, size)
                if first > SLOW:
                    break
        assert winner is not None
        return winner

    def _seconds(self, session: onnxruntime.InferenceSession, packed: NDArray[Any]) -> float:
        start = time.perf_counter()
        self._run(session, packed)
        return time.perf_counter() - start

    def _sizes(self, images: Images) -> Iterator[int]:
        if self._layout.batch is not None:
            yield self._layout.batch
            return
        yield from (size for size in BATCHES if size <= batch_size(images, size))

    def _open(self, threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait by spinning take the cores from whatever else runs: the gateway, its clients, other models.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what matters is raised, too
        known = onnxruntime.get_available_providers()
        try:
            return onnxruntime.InferenceSession(self._model, options, [one for one in PROVIDERS if one in known])
        except Exception as error:  # onnxruntime's errors have no common base
            raise ForetasteError(f"{self._source} cannot be run: {_complaint(error)}") from None


def read_model(path: Path) -> bytes:
    """Return the file as one piece, with weights that lie beside it put in; nothing is read from outside its folder.

    Raises:
        UsageError: there is no such file.
        ForetasteError: it is not ONNX, or its weights are missing or elsewhere.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist or is no file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ForetasteError(f"cannot read {path}: {error.strerror}") from None
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf's own
        raise ForetasteError(f"{path} is not an ONNX file") from None
    if not model.ir_version or not model.graph.node:
        raise ForetasteError(f"{path} is not an ONNX file")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        whole: bytes = model.SerializeToString()
    except Exception as error:  # a file that is missing, elsewhere or of the wrong size; more than 2 GiB
        raise ForetasteError(f"cannot read the weights of {path}: {_complaint(error)}") from None
    return whole


def _declared(argument: Any) -> Declared:
    """Return an input or output of a session in the terms that all models share."""
    dtype = TYPES.get(argument.type)
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in argument.shape)
    return Declared(argument.name, None if dtype is None else np.dtype(dtype), shape)


def read_classes(text: str | None) -> tuple[str, ...] | None:
    """Return the class names in a metadata value, or None if it is something else.

    Names are taken with whatever characters they hold; what prints them makes them safe. Only half of a surrogate pair,
    which no file could hold, becomes an escape.
    """
    try:
        names = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    if isinstance(names, list) and len(names) >= 2 and all(isinstance(name, str) for name in names):
        return tuple(name.encode("utf-8", "backslashreplace").decode() for name in names)
    return None


def _thread_counts() -> list[int]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({1, max(1, cores // 2), cores})


def _complaint(error: Exception) -> str:
    """Return the first line of an error, without onnxruntime's preamble."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return shown(line.split(" : ", 3)[-1] if line.startswith("[ONNXRuntimeError]") else line)
