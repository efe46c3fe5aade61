"""NEO as its paper has it: try every place for a patch of known size, one image after another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import ClassVar
from zlib import crc32

import numpy as np

from foretaste.classifiers.classifier import Classifier
from foretaste.errors import UsageError
from foretaste.guards import check_clean
from foretaste.guards.guard import Screening
from foretaste.guards.neo.batched_queries import Queries, ask
from foretaste.guards.neo.inpainting import Image, dominant_colour, with_colour
from foretaste.guards.neo.references import References
from foretaste.guards.neo.regions import Box, paste
from foretaste.guards.neo.registry import Registry
from foretaste.guards.threshold_screener import check_shape
from foretaste.guards.trigger import LEAST_FLIP_RATE, Trigger
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Images, Mask, Samples


@dataclass(frozen=True, kw_only=True)
class NEOPaper:
    """Cover each place, and paste what mattered into clean images (Udeshi et al. 2022, arXiv:1908.02203).

    The size of the trigger must be known. The paper has no false-alarm rate: the one asked for changes nothing.

    Attributes:
        size: side of the square patch as a share of the image's shorter side, in (0, 1].
        positions: places to try in an image, drawn at random, ≥ 1; None tries all, at a stride of one pixel.
        n_confirm: clean images that a patch is pasted into, ≥ 1.
        threshold: share of them whose label must change, in (0, 1].

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "neo-paper"
    summary: ClassVar[str] = "covers every place with the dominant colour, size given (Udeshi et al. 2022)"
    needs_scores: ClassVar[bool] = False

    size: float = 0.1
    positions: int | None = None
    n_confirm: int = 20
    threshold: float = LEAST_FLIP_RATE

    def __post_init__(self) -> None:
        for holds, complaint in (
            (0 < self.size <= 1, f"size must be in (0, 1], not {self.size:g}"),
            (self.positions is None or self.positions >= 1, f"positions must be 1 or more, not {self.positions}"),
            (self.n_confirm >= 1, f"n_confirm must be 1 or more, not {self.n_confirm}"),
            (0 < self.threshold <= 1, f"threshold must be in (0, 1], not {self.threshold:g}"),
        ):
            if not holds:
                raise UsageError(complaint)

    def calibrate(
        self,
        classifier: Classifier,
        clean: Samples,
        *,
        false_alarm_rate: float,
        seed: int,
        on_progress: OnProgress = silent,
    ) -> NEOPaperScreener:
        """Draw the clean images to confirm with, and ask for their labels.

        Raises:
            UsageError: the clean set is too small or of one class only, or is no images.
            ForetasteError: the classifier fails.
        """
        check_clean(classifier, clean, false_alarm_rate)
        rows = np.random.default_rng(seed).permutation(len(clean))[: self.n_confirm]
        images = np.array(clean.inputs[np.sort(rows)])
        return NEOPaperScreener(self, classifier, References(images, classifier.classify(images).labels), seed)


@dataclass(frozen=True)
class Finding:
    """A confirmed patch, and the label that the image has without it."""

    trigger: Trigger
    corrected: int


class NEOPaperScreener:
    """Screens inputs as the paper does: once a trigger is known, only its place is tried.

    Attributes:
        registry: the confirmed patches.
    """

    def __init__(self, method: NEOPaper, classifier: Classifier, references: References, seed: int) -> None:
        self.registry = Registry()
        self._method, self._classifier, self._references, self._seed = method, classifier, references, seed
        self._lock = RLock()

    def screen(self, images: Images, on_progress: OnProgress = silent) -> Screening:
        """Screen inputs ``uint8 (N, H, W, C)``, any N ≥ 0, of the clean set's shape, in their order.

        Until a trigger is found, each image is searched. From then on each is covered where triggers were found, and
        is trojaned if that changes its label. The score is the share of clean images that the patch turned.

        Raises:
            UsageError: the images are of another shape.
            ForetasteError: the classifier fails.
        """
        check_shape(images, self._references.images.shape[1:])
        labels = self._classifier.classify(images).labels
        corrected, queries = labels.copy(), np.ones(len(images), dtype=np.int64)
        scores, ids = np.zeros(len(images), dtype=np.float32), np.full(len(images), "", dtype="<U12")
        with self._lock:
            for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
                looking = self.propagate if len(self.registry) else self.search
                [asked] = ask([partial(looking, image, label)], self._classifier)
                queries[row] += asked.queries
                if asked.result is not None:
                    trigger = self.registry.add(asked.result.trigger)
                    corrected[row], scores[row], ids[row] = asked.result.corrected, trigger.flip_rate, trigger.id
                on_progress(Progress(phase="neo-paper: screen", done=row + 1, total=len(images)))
        return Screening(
            labels=labels,
            corrected=corrected,
            trojaned=ids != "",
            scores=scores,
            trigger_ids=ids,
            queries=queries,
        )

    def search(self, image: Image, label: int) -> Queries[Finding | None]:
        """Cover one place after another; confirm each that changes the label."""
        colour = dominant_colour(image, self._seed)
        for box in self.places(image):
            mask: Mask = np.ones((box.height, box.width), dtype=np.bool_)
            covered = yield with_colour(image, box, mask, colour)[None]
            if covered[0] == label:
                continue
            answers = yield paste(image, self._references.images, box)
            turned = answers != self._references.labels
            if turned.mean() >= self._method.threshold:
                forced = bool((answers[turned] == label).mean() >= 0.5)
                trigger = Trigger(
                    patch=np.array(image[box.part]),
                    mask=mask,
                    position=(box.top, box.left),
                    anywhere=False,
                    target=label if forced else None,
                    flip_rate=float(turned.mean()),
                    n_confirmed=len(answers),
                )
                return Finding(trigger, int(covered[0]))
        return None

    def propagate(self, image: Image, label: int) -> Queries[Finding | None]:
        """Cover the places of the known triggers; the first that changes the label is the trigger's."""
        colour = dominant_colour(image, self._seed)
        for trigger in self.registry:
            if trigger.box[2] > image.shape[0] or trigger.box[3] > image.shape[1]:
                continue  # from larger images
            covered = yield with_colour(image, Box(*trigger.box), trigger.mask, colour)[None]
            if covered[0] != label:
                return Finding(trigger, int(covered[0]))
        return None

    def places(self, image: Image) -> list[Box]:
        """Return the places to try in an image, row by row, or drawn at random."""
        height, width = image.shape[:2]
        side = max(round(self._method.size * min(height, width)), 1)
        boxes = [
            Box(top, left, top + side, left + side)
            for top in range(height - side + 1)
            for left in range(width - side + 1)
        ]
        if self._method.positions is None:
            return boxes
        rng = np.random.default_rng([self._seed, crc32(np.ascontiguousarray(image).tobytes())])
        return [boxes[place] for place in rng.permutation(len(boxes))[: self._method.positions].tolist()]
