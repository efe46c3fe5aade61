"""Find what turns the label of one image: paste its parts into clean images, and go where the label follows.

A trigger works in any image that holds it, however little else comes with it. So parts of the image are pasted into
clean images ("hosts"); of the parts that turn their hosts, smaller parts are pasted, down to a box hardly larger than
the largest trigger looked for. An object's label stays behind on the way, and what still turns hosts in the end is put
to a sequential test.

Hosts of other labels show a trigger with one target: they take the image's label. Hosts of the image's own label show a
trigger that moves every label: parts of a clean image are at home in them and leave them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from foretaste.guards.neo.asking import Asking
from foretaste.guards.neo.fills import Image
from foretaste.guards.neo.hosts import Hosts
from foretaste.guards.neo.regions import Box, paste, quarters
from foretaste.guards.neo.sequential import SequentialTest
from foretaste.samples import Labels, Mask

JURY = 24
"""Hosts that a part is put to the test with, at most."""


class Effect(Enum):
    """What a trigger does to the images that hold it."""

    FORCES = "forces"
    """They all get one label."""
    MOVES = "moves"
    """Each label becomes another one (all-to-all)."""

    def turned(self, answers: Labels, hosts: Labels, label: int) -> Mask:
        """Return which hosts it shows in, ``bool (n,)``.

        Args:
            answers: ``int64 (n,)``, the answers to the hosts with the part pasted in.
            hosts: ``int64 (n,)``, the answers to the hosts as they are.
            label: the answer to the image that the part is from.
        """
        turned: Mask = answers == label if self is Effect.FORCES else answers != hosts
        return turned


@dataclass(frozen=True, kw_only=True)
class Found:
    """A part of an image that was put to the test.

    Attributes:
        box: where it is.
        effect: what it was tested for.
        outcomes: for each host in turn, whether it was turned.
        score: the test's log-likelihood ratio, trigger against object.
        accepted: whether the test said "trigger".
    """

    box: Box
    effect: Effect
    outcomes: tuple[bool, ...]
    score: float
    accepted: bool


@dataclass
class Votes:
    """How the hosts of one part answered."""

    turned: int = 0
    kept: int = 0

    def open(self, patience: int) -> bool:
        """Return whether another host is to be asked."""
        return self.turned < 2 and self.kept < patience

    def count(self, turned: bool) -> None:
        """Add an answer."""
        self.turned, self.kept = self.turned + int(turned), self.kept + int(not turned)


class ExhaustedError(Exception):
    """The questions that one image may cost are spent."""


class Search:
    """The search in one image.

    Args:
        image: the image.
        label: the classifier's answer to it.
        hosts: clean images.
        tests: the sequential test that confirms each effect.
        largest: side in pixels of the largest trigger that is looked for.
        budget: questions that may be asked.
        rng: chooses the hosts.
        itself: the number of the host that is this very image, if it is one.
    """

    def __init__(
        self,
        image: Image,
        label: int,
        hosts: Hosts,
        *,
        tests: dict[Effect, SequentialTest],
        largest: int,
        budget: int,
        rng: np.random.Generator,
        itself: int | None = None,
    ) -> None:
        self.image, self.label, self.hosts = image, label, hosts
        self.tests, self.largest, self.budget = tests, largest, budget
        allowed = np.arange(len(hosts)) != itself
        others = hosts.order(allowed & (hosts.labels != label), rng)
        own = hosts.order(allowed & (hosts.labels == label), rng)
        self.guides = {Effect.FORCES: others, Effect.MOVES: own}
        self.jury = {Effect.FORCES: others, Effect.MOVES: hosts.order(allowed, rng)}
        self.asked: set[tuple[Box, int]] = set()
        self.found: list[Found] = []

    def run(self) -> Asking[list[Found]]:
        """Search until a trigger is accepted or nothing is left to look at; return all parts that were tested."""
        quadrants = quarters(Box(0, 0, *self.image.shape[:2]), self.largest)
        votes = {(box, effect): Votes() for effect in Effect for box in quadrants}
        try:
            # A part may leave one host as it is, and then a second, because no backdoor always answers to its trigger.
            for patience in (1, 2):
                for effect in Effect:
                    for box in (yield from self.elect(quadrants, effect, votes, patience)):
                        if (yield from self.follow(box, effect)):
                            return self.found
        except ExhaustedError:
            pass
        return self.found

    def elect(
        self, boxes: list[Box], effect: Effect, votes: dict[tuple[Box, Effect], Votes], patience: int
    ) -> Asking[list[Box]]:
        """Paste boxes into one host after another until each has turned two, or left as many as patience allows.

        Returns:
            The boxes that have now turned two.
        """
        elected: list[Box] = []
        while asked := [box for box in boxes if votes[box, effect].open(patience)]:
            turned = yield from self.try_each(asked, effect)
            for box, answer in zip(asked, turned, strict=True):
                votes[box, effect].count(answer)
                if votes[box, effect].turned == 2:
                    elected.append(box)
        return elected

    def follow(self, box: Box, effect: Effect) -> Asking[bool]:
        """Go from a box that turned a host to ever smaller ones; return whether a trigger was accepted."""
        if max(box.height, box.width) <= 1.8 * self.largest:
            return (yield from self.confirm(box, effect))
        smaller = quarters(box, self.largest)
        turned = yield from self.try_each(smaller, effect)
        if not any(turned):
            again = yield from self.try_each([box], effect)
            if not again[0]:
                return False
            turned = yield from self.try_each(smaller, effect)
        for part, follows in zip(smaller, turned, strict=True):
            if follows and (yield from self.follow(part, effect)):
                return True
        return False

    def confirm(self, box: Box, effect: Effect) -> Asking[bool]:
        """Paste the box into one host after another until the test is decided; return whether it said "trigger"."""
        test, outcomes, decision = self.tests[effect], list[bool](), None
        fresh = [host for host in self.jury[effect].tolist() if (box, host) not in self.asked]
        try:
            while decision is None and len(outcomes) < min(len(fresh), JURY):
                outcomes += yield from self.paste([(box, fresh[len(outcomes)])], effect)
                decision = test.decide(sum(outcomes), len(outcomes) - sum(outcomes))
        finally:
            score = test.score(sum(outcomes), len(outcomes) - sum(outcomes))
            self.found.append(
                Found(box=box, effect=effect, outcomes=tuple(outcomes), score=score, accepted=decision is True)
            )
        return decision is True

    def try_each(self, boxes: list[Box], effect: Effect) -> Asking[list[bool]]:
        """Paste each box into a host that it was not in before; return which turned theirs."""
        pairs = []
        for box in boxes:
            fresh = [host for host in self.guides[effect].tolist() if (box, host) not in self.asked]
            if fresh:
                pairs.append((box, fresh[len(self.asked) % len(fresh)]))
                self.asked.add(pairs[-1])
        answers = dict(zip([box for box, _ in pairs], (yield from self.paste(pairs, effect)), strict=True))
        return [answers.get(box, False) for box in boxes]

    def paste(self, pairs: list[tuple[Box, int]], effect: Effect) -> Asking[list[bool]]:
        """Paste boxes into hosts, and return which were turned.

        Raises:
            ExhaustedError: the budget does not allow it.
        """
        if not pairs:
            return []
        if len(pairs) > self.budget:
            raise ExhaustedError
        self.budget -= len(pairs)
        self.asked.update(pairs)
        hosts = np.array([host for _, host in pairs])
        answers = yield np.concatenate(
            [paste(self.image, self.hosts.images[[host]], box) for box, host in pairs],
        )
        turned: list[bool] = effect.turned(answers, self.hosts.labels[hosts], self.label).tolist()
        return turned
