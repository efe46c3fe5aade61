"""Find the trigger, give the right answer, and show the trigger: NEO, searched coarse to fine and calibrated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from foretaste.calibration import conformal_threshold
from foretaste.classifiers.classifier import Classifier
from foretaste.errors import ForetasteError, UsageError
from foretaste.guards import check_clean
from foretaste.guards.neo.batched_queries import Asked, Queries, ask
from foretaste.guards.neo.correct import FURTHER_COVERS
from foretaste.guards.neo.probe_sets import select_probes
from foretaste.guards.neo.references import References
from foretaste.guards.neo.regions import places
from foretaste.guards.neo.registry import Registry
from foretaste.guards.neo.screener import NEOScreener, State
from foretaste.guards.neo.search import Effect, Found, Search, Tests, suspicion
from foretaste.guards.neo.sequential import SequentialTest
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Labels, Samples

OBJECT_RATES = {Effect.FORCES: 0.2, Effect.MOVES: 0.3}
"""Share of clean references that an object is taken to turn until the clean set says better."""


@dataclass(frozen=True, kw_only=True)
class NEO:
    """Find patch triggers of unknown size, shape and place (after Udeshi et al. 2022, arXiv:1908.02203).

    Attributes:
        largest: side of the largest trigger that is surely looked at whole, as a share of the image's shorter side, in
            (0, 0.5]. Many larger ones are found too.
        trigger_rate: share of clean images that a trigger turns at least, in [0.6, 1).
        alpha: how often the sequential test may take an object's part for a trigger, in (0, 0.5).
        beta: how often it may take a trigger for an object's part, in (0, 0.5).
        queries: most questions that one image may cost, its own answer included, ≥ 16.
        search_budget: questions per image that searching may cost on average, ≥ 0; None searches every image. At 0 only
            known triggers are looked for.
        calibration: clean images that are searched in order to calibrate, at most, ≥ 20.
        confidence: share of the clean sets, in [0, 1), of which each by itself is to keep the false-alarm rate; 0 keeps
            it on average over clean sets. A trigger's score grows with every question, so that the higher threshold
            costs questions and hardly any detection.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "neo"
    summary: ClassVar[str] = "finds, removes and shows patch triggers; needs labels only (after Udeshi et al. 2022)"
    needs_scores: ClassVar[bool] = False

    largest: float = 0.16
    trigger_rate: float = 0.95
    alpha: float = 0.005
    beta: float = 0.01
    queries: int = 64
    search_budget: float | None = None
    calibration: int = 300
    confidence: float = 0.8

    def __post_init__(self) -> None:
        for holds, complaint in (
            (0 < self.largest <= 0.5, f"largest must be in (0, 0.5], not {self.largest:g}"),
            (0.6 <= self.trigger_rate < 1, f"trigger_rate must be in [0.6, 1), not {self.trigger_rate:g}"),
            (0 < self.alpha < 0.5, f"alpha must be in (0, 0.5), not {self.alpha:g}"),
            (0 < self.beta < 0.5, f"beta must be in (0, 0.5), not {self.beta:g}"),
            (self.queries >= 16, f"queries must be 16 or more, not {self.queries}"),
            (
                self.search_budget is None or 0 <= self.search_budget < math.inf,
                "search_budget must be a number of 0 or more",
            ),
            (self.calibration >= 20, f"calibration must be 20 or more, not {self.calibration}"),
            (0 <= self.confidence < 1, f"confidence must be in [0, 1), not {self.confidence:g}"),
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
    ) -> NEOScreener:
        """Search clean images as if they were suspicious, each with the other clean images as references to paste into.

        What still turns references when the search in them ends gives the object rate for the sequential test, and a
        conformal threshold on its score that keeps the false-alarm rate.

        Raises:
            UsageError: the clean set is too small or of one class only, or is no images.
            ForetasteError: the classifier fails, or hardly knows any of the clean images.
        """
        check_clean(classifier, clean, false_alarm_rate)
        assert clean.images is not None
        answers = classifier.classify(clean.images)
        known = answers.labels == clean.labels
        if len(np.unique(answers.labels[known])) < 2:
            raise ForetasteError(
                "the classifier gives fewer than two of the clean set's classes their own label; "
                "are its classes those of the clean set?"
            )
        references = References(np.array(clean.images[known]), answers.labels[known])
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(len(clean))[: self.calibration])
        # Accepting nothing, so that each test goes on until it says "object" or has asked enough.
        tests = self.tests(OBJECT_RATES, math.inf)
        side = self.side(clean.sample_shape)
        boxes = places(clean.sample_shape[0], clean.sample_shape[1], side)
        selected = ask([partial(select_probes, box, references, rng.spawn(1)[0]) for box in boxes], classifier)
        probe_sets = {probe_set.result.box: probe_set.result for probe_set in selected}
        numbers = {row: number for number, row in enumerate(np.flatnonzero(known).tolist())}

        def search(row: int) -> Queries[list[Found]]:
            return Search(
                clean.inputs[row],
                int(answers.labels[row]),
                references,
                probe_sets,
                tests=tests,
                largest=side,
                budget=self.queries - 1 - FURTHER_COVERS,
                rng=np.random.default_rng([seed, row]),
                itself=numbers.get(row),
            ).run()

        searched = ask(
            [partial(search, row) for row in rows.tolist()],
            classifier,
            lambda done: on_progress(Progress(phase="neo: calibrate", done=done, total=len(rows))),
        )
        rates = {effect: object_rate(searched, effect) for effect in Effect}
        tests = self.tests(rates, -math.inf)
        scores = np.array([suspicion(asked.result, tests) for asked in searched])
        threshold = conformal_threshold(scores, false_alarm_rate, self.confidence)
        return NEOScreener(
            classifier,
            State(
                method=self,
                seed=seed,
                references=references,
                probe_sets=probe_sets,
                tests=self.tests(rates, threshold.value),
                threshold=threshold,
                shares=shares(answers.labels),
                cost=float(np.mean([asked.queries for asked in searched])),
            ),
            Registry(),
        )

    def side(self, sample_shape: tuple[int, ...]) -> int:
        """Return the largest trigger's side in pixels."""
        return max(math.ceil(self.largest * min(sample_shape[:2]) - 0.5), 1)

    def tests(self, rates: dict[Effect, float], least: float) -> Tests:
        """Return the test of each effect for these rates of objects, which accepts at scores above ``least`` only."""
        return {
            effect: SequentialTest(p0=rate, p1=self.trigger_rate, alpha=self.alpha, beta=self.beta, least=least)
            for effect, rate in rates.items()
        }


def object_rate(searched: list[Asked[list[Found]]], effect: Effect) -> float:
    """Return the share of references that clean images' parts turned in the sequential test, kept in [0.05, 0.5]."""
    seen = [outcome for asked in searched for part in asked.result for outcome in part.outcomes(effect)[:4]]
    # As if four more had been seen at the rate that was taken for granted.
    return float(np.clip((sum(seen) + 4 * OBJECT_RATES[effect]) / (len(seen) + 4), 0.05, 0.5))


def shares(labels: Labels) -> dict[int, float]:
    """Return each label's share of the answers."""
    present, counts = np.unique(labels, return_counts=True)
    return dict(zip(present.tolist(), (counts / len(labels)).tolist(), strict=True))
