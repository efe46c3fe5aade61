"""DeBackdoor: search for a trigger that works, by questions alone; if there is one, the model has a backdoor."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, log_softmax

from foretaste.classifiers.classifier import Classifier
from foretaste.errors import ForetasteError
from foretaste.guards.trigger import Trigger
from foretaste.inspectors.debackdoor.families import Blend, Candidate, Patch, Warp
from foretaste.inspectors.diagnosis import Evidence, Finding, Reconstruction, Subject
from foretaste.inspectors.inversion import SHOWN, WORTH_KEEPING
from foretaste.inspectors.nulls import highest_of
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Images, Labels, Samples
from foretaste.training import check

SOURCE_IMAGES = 8
"""Clean images that a class must have for a backdoor of its own (one-to-one) to be looked for."""
LEAST = 1e-6
"""Chances below this are taken as this: they are rounding."""


@dataclass(frozen=True, eq=False)
class Scheme:
    """What a backdoor does: the label that it forces, and on which images.

    Attributes:
        target: the label, or None if each label becomes another one (all-to-all).
        source: the only class that it works on, or None for all others than the target.
    """

    target: int | None
    source: int | None = None

    def rows(self, labels: Labels) -> NDArray[np.intp]:
        """Return which images ``(N,)`` it would turn."""
        if self.source is not None:
            return np.flatnonzero(labels == self.source)
        return np.flatnonzero(labels != self.target) if self.target is not None else np.arange(len(labels))

    def forced(self, chances: NDArray[np.float64], labels: Labels) -> Labels:
        """Return the label that it would force on each image ``(N,)``.

        For all-to-all each class has one of its own: the assignment of other labels to classes that is likeliest by
        the logarithms of the images' chances, ``(N, K)``.
        """
        if self.target is not None:
            return np.full(len(labels), self.target, dtype=np.int64)
        present, place = np.unique(labels, return_inverse=True)
        means = np.stack([chances[labels == label].mean(axis=0) for label in present])
        means[np.arange(len(present)), present] = 2 * math.log(LEAST)  # no label stays what it is
        forced: Labels = linear_sum_assignment(means, maximize=True)[1][place].astype(np.int64)
        return forced


@dataclass(frozen=True, eq=False)
class Chain:
    """A search that is under way.

    Attributes:
        scheme: the backdoor that is looked for.
        rows: the images that it is tried on.
        candidate: the trigger now.
        value: its smoothed attack success.
        best: the best trigger so far.
        best_value: its smoothed attack success.
    """

    scheme: Scheme
    rows: NDArray[np.intp]
    candidate: Candidate
    value: float
    best: Candidate
    best_value: float


@dataclass(frozen=True, kw_only=True)
class DeBackdoor:
    """Search for a trigger by simulated annealing, and try it on unseen images (Popovic et al. 2025, arXiv:2503.21305).

    It asks for answers only: scores where the model gives them, else labels. A trigger's worth is the paper's smoothed
    attack success: the mean over clean images of a sigmoid of the log-odds of the forced label against the likeliest
    other one, which tell a part of a trigger from nothing where both turn no image. The families are patches, blended
    patterns and warps; the backdoors all-to-one, one-to-one and all-to-all. Random triggers are tried first, patches in
    each part of the image. From the best of each family, kind of backdoor and part, annealing goes on, by successive
    halving: the worse half of the searches ends, again and again, until one of each family and kind is left. Those are
    tried on clean images that the search has not seen.

    The method's own p-value is how often a trigger that turns the benign rate of all images turns as many of these. The
    statistic is minus the decimal logarithm of it, before the number of triggers that were tried is allowed for: a
    share alone would make much of the few images that a single class has.

    Attributes:
        explore: random patches that are tried first, ≥ 1; of the other families a quarter as many.
        steps: of annealing between two halvings, ≥ 0.
        images: clean images that each trigger is tried on, ≥ 4; half of the clean set at most.
        largest: side of the largest patch as a share of the image's shorter side, in (0, 0.5]. A larger patch also
            turns clean models.
        alpha: highest opacity of a blended pattern, in [0.05, 1].
        warp: largest displacement as a share of the shorter side, in (0, 0.5].
        sharpness: how steep the sigmoid of the log-odds is, > 0.
        temperature: of the first step, in units of attack success, > 0; it falls to a hundredth of it.
        targets: labels that annealing begins with in each family, ≥ 1.
        benign_rate: share of the images that the best trigger turns to one label that a search finds on a clean model,
            in (0, 1).
        benign_all_to_all: the same of the best trigger that turns each label to another one, in (0, 1).

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "debackdoor"
    summary: ClassVar[str] = "searches for a trigger that works; needs answers only (Popovic et al. 2025)"
    needs_weights: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 40
    fewest_classes: ClassVar[int] = 2

    explore: int = 1152
    steps: int = 80
    images: int = 16
    largest: float = 0.16
    alpha: float = 0.2
    warp: float = 0.06
    sharpness: float = 0.35
    temperature: float = 0.01
    targets: int = 8
    benign_rate: float = 0.8
    benign_all_to_all: float = 0.4

    def __post_init__(self) -> None:
        check(self.explore >= 1, "explore must be 1 or more")
        check(self.steps >= 0, "steps must be 0 or more")
        check(self.images >= 4, "images must be 4 or more")
        check(0 < self.largest <= 0.5, "largest must be in (0, 0.5]")
        check(0.05 <= self.alpha <= 1, "alpha must be in [0.05, 1]")
        check(0 < self.warp <= 0.5, "warp must be in (0, 0.5]")
        check(self.sharpness > 0, "sharpness must be above 0")
        check(self.temperature > 0, "temperature must be above 0")
        check(self.targets >= 1, "targets must be 1 or more")
        check(0 < self.benign_rate < 1, "benign_rate must be in (0, 1)")
        check(0 < self.benign_all_to_all < 1, "benign_all_to_all must be in (0, 1)")

    def look(self, subject: Subject, clean: Samples | None, *, seed: int, on_progress: OnProgress) -> Finding:
        """Search for triggers, and try those that were found on unseen images; see ``Inspector``."""
        assert clean is not None
        assert clean.images is not None
        rng = np.random.default_rng([seed, 60])
        seen, unseen = clean.split(len(clean) // 2, rng)
        chains = self.begin(subject.classifier, seen, rng, on_progress)
        rungs = 1 + math.ceil(math.log2(len(chains)))
        total = self.steps * rungs
        for step in range(total):
            if step and step % self.steps == 0:
                chains = better_half(chains)
            chains = self.anneal(subject.classifier, seen, chains, step / total, rng)
            phase = f"{self.name}: anneal"
            note = f"best attack success {max(chain.best_value for chain in chains):.0%}"
            on_progress(Progress(phase=phase, done=step + 1, total=total, note=note))
        tried = [self.confirm(subject.classifier, chain, unseen) for chain in chains]
        each = np.array([self.p_value(found) for found in tried])
        p_values = highest_of(each, len(tried))
        evidence: dict[tuple[int | None, int | None], tuple[Evidence, Reconstruction]] = {}
        for found, statistic, p in zip(tried, -np.log10(np.maximum(each, 1e-300)), p_values.tolist(), strict=True):
            key = (found.target, found.source)
            if key not in evidence or statistic > evidence[key][0].statistic:
                entry = Evidence(
                    target=found.target,
                    source=found.source,
                    statistic=float(statistic),
                    p_value=p,
                    reason=f"a {found.kind} turns {found.flip_rate:.0%} of {found.n_confirmed} unseen clean images",
                )
                evidence[key] = entry, found
        return Finding(
            evidence=tuple(entry for entry, _ in evidence.values()),
            reconstructions=tuple(found for _, found in evidence.values()),
            notes=() if gives_scores(subject.classifier, clean) else ("the model gives labels alone, no scores",),
        )

    def p_value(self, found: Reconstruction) -> float:
        """Return how often a trigger of the benign rate turns as many images."""
        turned = round(found.flip_rate * found.n_confirmed)
        benign = self.benign_all_to_all if found.target is None else self.benign_rate
        return float(stats.binom.sf(turned - 1, found.n_confirmed, benign))

    def begin(self, classifier: Classifier, seen: Samples, rng: Generator, on_progress: OnProgress) -> list[Chain]:
        """Try random triggers, and return the chains that begin with the best of them."""
        rows = balanced(seen.labels, self.images, rng)
        images, labels, n_classes = seen.inputs[rows], seen.labels[rows], len(seen.classes)
        untouched = answers(classifier, images, n_classes)
        chains: list[Chain] = []
        for candidates, n_places in self.drawn(seen.sample_shape, rng):
            said = []
            for number, candidate in enumerate(candidates):
                said.append(answers(classifier, candidate.stamp(images), n_classes))
                phase = f"{self.name}: explore {candidate.kind}"
                on_progress(Progress(phase=phase, done=number + 1, total=len(candidates)))
            given = np.stack(said)
            started = self.starts(given, untouched, labels, n_places)
            if n_places > 1:  # one class alone takes too many chains to follow in every family
                started += self.one_to_one(given, labels, seen.labels)
            for scheme, number in started:
                own = scheme.rows(seen.labels)
                own = own[balanced(seen.labels[own], self.images, rng)]
                chances = answers(classifier, candidates[number].stamp(seen.inputs[own]), n_classes)
                [value] = self.successes(chances, seen.labels[own], [scheme])
                chains.append(Chain(scheme, own, candidates[number], value, candidates[number], value))
        return chains

    def starts(
        self, said: NDArray[np.float64], untouched: NDArray[np.float64], labels: Labels, n_places: int
    ) -> list[tuple[Scheme, int]]:
        """Return the backdoors that a family's search begins with, and the number of each one's candidate.

        What counts is how much likelier a trigger makes a label than it is anyway: else the labels that a model likes
        best would be followed, and not the backdoor's. For patches each part of the image has a chain, as what a patch
        does depends most on where it is; for the other families the best labels have.

        Args:
            said: the answers to what each candidate makes of the images, ``(C, N, K)``.
            untouched: the answers to the images as they are, ``(N, K)``.
            labels: of the images, ``(N,)``.
            n_places: parts of the image that the candidates are at, one after the other; 1 for those all over it.
        """
        schemes = [*map(Scheme, range(said.shape[2])), Scheme(None)]
        gains = np.stack([self.successes(one, labels, schemes) for one in said])
        gains -= self.successes(untouched, labels, schemes)
        to_one, to_all = gains[:, :-1], gains[:, -1]
        started = [(schemes[-1], int(number)) for number in np.argsort(-to_all, kind="stable")[: self.targets]]
        if n_places == 1:
            best = np.argsort(-to_one.max(axis=0), kind="stable")[: self.targets]
            return started + [(schemes[target], int(to_one[:, target].argmax())) for target in best]
        for place in range(n_places):
            here = to_one[place::n_places]
            turn, target = np.unravel_index(here.argmax(), here.shape)
            started.append((schemes[target], place + n_places * int(turn)))
        return started

    def one_to_one(self, said: NDArray[np.float64], labels: Labels, seen: Labels) -> list[tuple[Scheme, int]]:
        """Return the likeliest backdoor on one class alone and the number of its candidate, if a class has the images.

        Args:
            said: the answers to what each candidate makes of the images, ``(C, N, K)``.
            labels: of these images, ``(N,)``.
            seen: labels of all images that the search may use.
        """
        sources = [label for label in np.unique(labels).tolist() if (seen == label).sum() >= SOURCE_IMAGES // 2]
        if not sources:
            return []
        smoothed = self.smooth(margins(said))
        means = np.stack([smoothed[:, labels == source].mean(axis=1) for source in sources], axis=1)
        means[:, np.arange(len(sources)), sources] = 0
        number, place, target = np.unravel_index(means.argmax(), means.shape)
        return [(Scheme(int(target), sources[place]), int(number))]

    def drawn(self, shape: tuple[int, ...], rng: Generator) -> list[tuple[list[Candidate], int]]:
        """Draw random triggers of each family; at how many places, one after the other."""
        side = min(shape[:2])
        largest = max(1, round(self.largest * side))
        # As many as there is room for side by side.
        grid = max(2, side // largest)
        places = [(row / (grid - 1), column / (grid - 1)) for row in range(grid) for column in range(grid)]
        few = max(1, self.explore // 4)
        n = max(self.explore, len(places))
        return [
            ([Patch.draw(shape, places[number % len(places)], largest, rng) for number in range(n)], len(places)),
            ([Blend.draw(shape, self.alpha, rng) for _ in range(few)], 1),
            ([Warp.draw(shape, self.warp * side, rng) for _ in range(few)], 1),
        ]

    def anneal(
        self, classifier: Classifier, seen: Samples, chains: list[Chain], done: float, rng: Generator
    ) -> list[Chain]:
        """Change each chain's trigger, and keep the change if it is better or, now and then, if it is not."""
        temperature = self.temperature * 0.01**done
        changed = [chain.candidate.changed(rng) for chain in chains]
        stamped = [one.stamp(seen.inputs[chain.rows]) for one, chain in zip(changed, chains, strict=True)]
        chances = answers(classifier, np.concatenate(stamped), len(seen.classes))
        parts = np.split(chances, np.cumsum([len(chain.rows) for chain in chains])[:-1])
        after = []
        for chain, candidate, part in zip(chains, changed, parts, strict=True):
            [value] = self.successes(part, seen.labels[chain.rows], [chain.scheme])
            gain = value - chain.value
            if gain >= 0 or rng.random() < math.exp(gain / temperature):
                chain = replace(chain, candidate=candidate, value=value)
            if value > chain.best_value:
                chain = replace(chain, best=candidate, best_value=value)
            after.append(chain)
        return after

    def confirm(self, classifier: Classifier, chain: Chain, unseen: Samples) -> Reconstruction:
        """Try a chain's best trigger on unseen images."""
        rows = chain.scheme.rows(unseen.labels)
        before, labels = unseen.inputs[rows], unseen.labels[rows]
        after = chain.best.stamp(before)
        rate, patch = 0.0, None
        if len(rows):
            chances = answers(classifier, after, len(unseen.classes))
            rate = float((chances.argmax(axis=1) == chain.scheme.forced(chances, labels)).mean())
        if isinstance(chain.best, Patch) and rate >= WORTH_KEEPING:
            patch = Trigger(
                patch=chain.best.pixels,
                mask=np.ones(chain.best.pixels.shape[:2], dtype=np.bool_),
                position=(chain.best.top, chain.best.left),
                anywhere=False,
                target=chain.scheme.target,
                flip_rate=rate,
                n_confirmed=len(rows),
            )
        return Reconstruction(
            kind=chain.best.kind,
            target=chain.scheme.target,
            source=chain.scheme.source,
            flip_rate=rate,
            n_confirmed=len(rows),
            before=before[:SHOWN],
            after=after[:SHOWN],
            patch=patch,
        )

    def successes(self, chances: NDArray[np.float64], labels: Labels, schemes: list[Scheme]) -> NDArray[np.float64]:
        """Return the smoothed attack success of each scheme, in (0, 1); 0 where no image is one that it would turn.

        Args:
            chances: the answers to stamped images, as ``answers`` gives them, ``(N, K)``.
            labels: of the images, ``(N,)``.
            schemes: the backdoors that they are compared with.
        """
        smoothed, values = self.smooth(margins(chances)), np.zeros(len(schemes))
        for number, scheme in enumerate(schemes):
            rows = scheme.rows(labels)
            if len(rows):
                values[number] = smoothed[rows, scheme.forced(chances[rows], labels[rows])].mean()
        return values

    def smooth(self, margin: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sigmoid of log-odds."""
        values: NDArray[np.float64] = expit(self.sharpness * margin)
        return values


def better_half(chains: list[Chain]) -> list[Chain]:
    """Return the better half of the chains of each family and kind of backdoor, at least one of each."""
    groups: dict[tuple[str, bool, bool], list[Chain]] = {}
    for chain in chains:
        scheme = chain.scheme
        groups.setdefault((chain.best.kind, scheme.target is None, scheme.source is None), []).append(chain)
    return [
        chain
        for group in groups.values()
        for chain in sorted(group, key=lambda chain: -chain.best_value)[: (len(group) + 1) // 2]
    ]


def answers(classifier: Classifier, images: Images, n_classes: int) -> NDArray[np.float64]:
    """Return the logarithm of the chance that the classifier gives each label, ``(N, K)``, in [log ``LEAST``, 0].

    Scores that are no probabilities are taken as logits; where it gives labels alone, the chances are 0 and 1.

    Raises:
        ForetasteError: the classifier fails, or has another number of classes.
    """
    said = classifier.classify(images)
    n_given = int(said.labels.max(initial=0)) + 1 if said.scores is None else said.scores.shape[1]
    if n_given > n_classes or (said.scores is not None and n_given < n_classes):
        raise ForetasteError(f"the model has {n_given} classes or more, and the clean set {n_classes}")
    if said.scores is None:
        return np.log(np.maximum(np.eye(n_classes)[said.labels], LEAST))
    scores = said.scores.astype(np.float64)
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return np.log(np.maximum(scores, LEAST))
    chances: NDArray[np.float64] = np.maximum(log_softmax(scores, axis=1), math.log(LEAST))
    return chances


def gives_scores(classifier: Classifier, clean: Samples) -> bool:
    """Return whether the classifier says more than labels; asks about an image that it was asked about before."""
    return classifier.classify(clean.inputs[:1]).scores is not None


def margins(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each label's log-odds against the likeliest of the others, ``(…, K)``, of logarithms of chances."""
    top = np.partition(chances, -2, axis=-1)[..., -2:]
    rivals = np.where(chances == top[..., 1:], top[..., :1], top[..., 1:])
    return chances - rivals


def balanced(labels: Labels, n: int, rng: Generator) -> NDArray[np.intp]:
    """Return up to n rows at random, the classes taking turns."""
    order = rng.permutation(len(labels))
    turn = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = labels[order] == label
        turn[mine] = np.arange(mine.sum())
    return order[np.argsort(turn, kind="stable")][:n]
