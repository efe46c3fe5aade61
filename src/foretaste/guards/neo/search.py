"""Find the part of one image that gives it its label without being what the label is about.

A trigger works in any image that holds it, however little else comes with it; and without it, the image gets another
label. So parts of the image are covered with what a clean image of the same label has there, in which a clean image
stays what it was; and parts are pasted into clean images of other labels, which an object's part seldom turns. In the
parts that change a label, smaller parts are tried, down to a box hardly larger than the largest trigger looked for. An
object falls apart on the way. What is left is pasted into one clean image after another until a sequential test is
decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

import numpy as np

from foretaste.guards.neo.batched_queries import Queries
from foretaste.guards.neo.inpainting import Image, with_surround
from foretaste.guards.neo.probe_sets import CANDIDATES, ProbeSet
from foretaste.guards.neo.references import References
from foretaste.guards.neo.regions import Box, paste, quarters, small_enough
from foretaste.guards.neo.sequential import SequentialTest
from foretaste.samples import Images, Labels, Mask


class Effect(Enum):
    """What a trigger does to the images that hold it."""

    FORCES = "forces"
    """They all get one label."""
    MOVES = "moves"
    """Each label becomes another one (all-to-all)."""

    def turned(self, answers: Labels, before: Labels, label: int) -> Mask:
        """Return which clean images it shows in, ``bool (n,)``.

        Args:
            answers: ``int64 (n,)``, the answers to the clean images with the part pasted in.
            before: ``int64 (n,)``, the answers to the clean images as they are.
            label: the answer to the image that the part is from.
        """
        turned: Mask = answers == label if self is Effect.FORCES else answers != before
        return turned


Tests = dict[Effect, SequentialTest]
"""The sequential test of each effect."""


class Trial(Enum):
    """How a part is tried."""

    COVER = "cover"
    """It is covered with what a clean image of the same label has there; it matters if the label changes."""
    PASTE = "paste"
    """It is pasted into a clean image of another label; it matters if that takes the label."""


PATIENCE = 2
"""Covers that may leave the label before a quadrant is given up: by chance one may keep it."""


@dataclass
class Quadrant:
    """What is known of a quarter of the image.

    Attributes:
        box: where it is.
        left: covers that left the image's label.
        changed: covers that changed it.
        forces: whether it forced the label on a clean image.
        followed: whether its parts were looked at.
    """

    box: Box
    left: int = 0
    changed: int = 0
    forces: bool = False
    followed: bool = False

    @property
    def suspect(self) -> bool:
        """Whether its parts are to be looked at: two of the answers are against it."""
        return not self.followed and self.changed + self.forces >= 2 and self.changed >= 1


@dataclass(frozen=True, kw_only=True)
class Found:
    """A part of an image that was pasted into clean images of other labels.

    Attributes:
        box: where it is.
        forced: of each of them in turn, whether it took the image's label.
        moved: of each of them in turn, whether its label changed.
        covered: the answer to the image with the box filled with what surrounds it.
        accepted: what the tests said of the part in the end: the effect that it has as a trigger, or None.
    """

    box: Box
    forced: tuple[bool, ...]
    moved: tuple[bool, ...]
    covered: int
    accepted: Effect | None

    def outcomes(self, effect: Effect) -> tuple[bool, ...]:
        """Return in which of the clean images the effect shows."""
        return self.forced if effect is Effect.FORCES else self.moved


def suspicion(parts: Sequence[Found], tests: Tests) -> float:
    """Return the highest log-likelihood ratio that any part came to on its way, under any of the tests."""
    peaks = [test.peak(part.outcomes(effect)) for part in parts for effect, test in tests.items()]
    return max(peaks, default=floor(tests))


def floor(tests: Tests) -> float:
    """Return the score of an image of which no part was tested."""
    return min(test.lowest for test in tests.values())


class ExhaustedError(Exception):
    """The questions that one image may cost are spent."""


class Search:
    """The search in one image.

    Args:
        image: the image.
        label: the classifier's answer to it.
        references: clean images.
        probe_sets: which of them judge each smallest box, by box.
        tests: what decides.
        largest: side in pixels of the largest trigger that is looked for.
        budget: questions that may be asked.
        rng: chooses the references.
        itself: the number of the reference that is this very image, if it is one.
    """

    def __init__(
        self,
        image: Image,
        label: int,
        references: References,
        probe_sets: Mapping[Box, ProbeSet],
        *,
        tests: Tests,
        largest: int,
        budget: int,
        rng: np.random.Generator,
        itself: int | None = None,
    ) -> None:
        self.image, self.label, self.references, self.probe_sets, self.itself = (
            image,
            label,
            references,
            probe_sets,
            itself,
        )
        self.tests, self.largest, self.budget = tests, largest, budget
        allowed = np.arange(len(references)) != itself
        self.others = references.order(allowed & (references.labels != label), rng).tolist()
        alike = references.order(allowed & (references.labels == label), rng).tolist()
        # Where no clean image has this label, another one has to do.
        self.helpers: dict[Trial, list[int]] = {Trial.COVER: alike or self.others, Trial.PASTE: self.others}
        self.tried: set[tuple[Trial, Box, int]] = set()
        self.found: list[Found] = []

    def run(self) -> Queries[list[Found]]:
        """Search until a trigger is accepted or nothing is left to look at; return all parts that were tested."""
        with suppress(ExhaustedError):
            yield from self.look_around()
        return self.found

    def look_around(self) -> Queries[bool]:
        """Try the quarters of the image, and follow those that matter; return whether a trigger was accepted."""
        quadrants = [Quadrant(box) for box in quarters(Box(0, 0, *self.image.shape[:2]), self.largest)]
        pasted = False
        for patience in range(1, PATIENCE + 1):
            while asked := [q for q in quadrants if q.left < patience and q.changed < 2 and not q.followed]:
                for quadrant, changed in zip(
                    asked, (yield from self.try_each([q.box for q in asked], Trial.COVER)), strict=True
                ):
                    quadrant.left, quadrant.changed = quadrant.left + (not changed), quadrant.changed + changed
                if not pasted:
                    pasted = True
                    for quadrant, forces in zip(
                        quadrants, (yield from self.try_each([q.box for q in quadrants], Trial.PASTE)), strict=True
                    ):
                        quadrant.forces = forces
                for quadrant in quadrants:
                    if quadrant.suspect:
                        quadrant.followed = True
                        if (yield from self.follow(quadrant.box, Trial.COVER, proven=quadrant.forces)):
                            return True
        # Where no cover helps, as without a clean image of this label, pasting alone has to do.
        left = [quadrant for quadrant in quadrants if quadrant.forces and not quadrant.followed]
        for quadrant, forces in zip(left, (yield from self.try_each([q.box for q in left], Trial.PASTE)), strict=True):
            if forces and (yield from self.follow(quadrant.box, Trial.PASTE, proven=True)):
                return True
        return False

    def follow(self, box: Box, trial: Trial, *, proven: bool) -> Queries[bool]:
        """Go from a box that matters to ever smaller ones.

        Args:
            box: where to begin.
            trial: how smaller boxes are tried.
            proven: whether the box, or one around it, has turned a clean image.

        Returns:
            Whether a trigger was accepted.
        """
        if small_enough(box, self.largest):
            return (yield from self.confirm(box))
        if not proven and box in self.probe_sets:
            moved, _ = yield from self.judge(box, self.probes(box)[0])
            if not moved:
                return False
        smaller = quarters(box, self.largest)
        matter = yield from self.try_each(smaller, trial)
        if not any(matter):
            matter = yield from self.try_each(smaller, trial)
        for part, matters in zip(smaller, matter, strict=True):
            if matters and (yield from self.follow(part, trial, proven=proven)):
                return True
        return False

    def confirm(self, box: Box) -> Queries[bool]:
        """Paste the box into clean images of other labels until the tests are decided; return whether one accepted.

        Unless covering it leaves the label as it is: then nothing in it matters.
        """
        if any(part.box == box for part in self.found):
            return False
        mask = np.ones((box.height, box.width), dtype=np.bool_)
        covered = int((yield from self.ask(with_surround(self.image, box, mask)[None]))[0])
        if covered == self.label:
            return False
        forced, moved = list[bool](), list[bool]()
        accepted: Effect | None = None
        try:
            for reference in self.probes(box):
                turned, took_label = yield from self.judge(box, reference)
                forced.append(took_label)
                moved.append(turned)
                verdicts = {
                    effect: self.tests[effect].decide(sum(outcomes), len(outcomes) - sum(outcomes))
                    for effect, outcomes in ((Effect.FORCES, forced), (Effect.MOVES, moved))
                }
                accepted = next((effect for effect, verdict in verdicts.items() if verdict), None)
                if accepted is not None or not any(verdict is None for verdict in verdicts.values()):
                    break
        finally:
            self.found.append(
                Found(box=box, forced=tuple(forced), moved=tuple(moved), covered=covered, accepted=accepted)
            )
        return accepted is not None

    def judge(self, box: Box, reference: int) -> Queries[tuple[bool, bool]]:
        """Paste the box into a clean image; return whether its label changed, and whether it took the image's."""
        answers = yield from self.ask(paste(self.image, self.references.images[[reference]], box))
        return bool(answers[0] != self.references.labels[reference]), bool(answers[0] == self.label)

    def probes(self, box: Box) -> list[int]:
        """Return the numbers of the clean images of other labels that judge a box."""
        references = self.probe_sets[box].references if box in self.probe_sets else self.others[:CANDIDATES]
        return [
            reference
            for reference in references
            if self.references.labels[reference] != self.label and reference != self.itself
        ]

    def try_each(self, boxes: list[Box], trial: Trial) -> Queries[list[bool]]:
        """Try each box with a clean image that it was not tried with before; return which changed a label."""
        helpers = self.helpers[trial]
        pairs = []
        for box in boxes:
            fresh = [reference for reference in helpers if (trial, box, reference) not in self.tried]
            if fresh:
                pairs.append((box, fresh[len(self.tried) % len(fresh)]))
                self.tried.add((trial, *pairs[-1]))
        if not pairs:
            return [False] * len(boxes)
        if trial is Trial.COVER:
            images = [paste(self.references.images[reference], self.image[None], box) for box, reference in pairs]
        else:
            images = [paste(self.image, self.references.images[[reference]], box) for box, reference in pairs]
        answers = yield from self.ask(np.concatenate(images))
        changed = {
            box: bool(answer != self.label if trial is Trial.COVER else answer == self.label)
            for (box, _), answer in zip(pairs, answers.tolist(), strict=True)
        }
        return [changed.get(box, False) for box in boxes]

    def ask(self, images: Images) -> Queries[Labels]:
        """Ask, if the budget allows.

        Raises:
            ExhaustedError: it does not.
        """
        if len(images) > self.budget:
            raise ExhaustedError
        self.budget -= len(images)
        answers = yield images
        return answers
