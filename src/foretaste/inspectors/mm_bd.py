"""MM-BD: the largest margin that any input gives a label is unusually large for a backdoor's target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from foretaste.classifiers.batches import most_at_once
from foretaste.inspectors.diagnosis import Evidence, Finding, Subject
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples
from foretaste.training import check, draws

SIMULATED = 10_000
"""Clean models whose margins are drawn for the p-values, the lowest of which is 1 / 10,001."""


@dataclass(frozen=True, kw_only=True)
class MMBD:
    """Maximise each label's margin over all inputs; the target's stands out (Wang et al. 2024, arXiv:2205.06900).

    The margin is a label's logit minus the highest of the others. A gamma distribution is fitted to the largest margins
    of all labels but the highest one, as the paper does it; a p-value is how often the highest of K margins that are
    drawn from it, and judged in the same way, stands out as much. It needs no image.

    Attributes:
        starts: random images per label that are optimised, ≥ 1; the largest margin counts.
        steps: of Adam, ≥ 1.
        learning_rate: of Adam on the pixels' logits, > 0.

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "mm-bd"
    summary: ClassVar[str] = "largest margin per class; needs weights and no data (Wang et al. 2024)"
    needs_weights: ClassVar[bool] = True
    fewest_clean: ClassVar[int] = 0
    fewest_classes: ClassVar[int] = 4

    starts: int = 3
    steps: int = 60
    learning_rate: float = 0.3

    def __post_init__(self) -> None:
        check(self.starts >= 1, "starts must be 1 or more")
        check(self.steps >= 1, "steps must be 1 or more")
        check(self.learning_rate > 0, "learning_rate must be above 0")

    def look(self, subject: Subject, clean: Samples | None, *, seed: int, on_progress: OnProgress) -> Finding:
        """Compare the labels' largest margins; see ``Inspector``."""
        margins = self.margins(subject, seed, on_progress)
        p_values = margin_p_values(margins)
        # P-values have a lowest one, and the margin's own scale is each model's: their ratio compares.
        middle = float(np.median(margins))
        statistics = margins / middle
        return Finding(
            evidence=tuple(
                Evidence(
                    target=label,
                    statistic=float(statistics[label]),
                    p_value=float(p_values[label]),
                    reason=f"its largest margin is {margins[label]:.3g}; the classes' median is {middle:.3g}",
                )
                for label in range(len(margins))
            )
        )

    def margins(self, subject: Subject, seed: int, on_progress: OnProgress) -> NDArray[np.float64]:
        """Return each label's largest margin, ``(K,)``, > 0."""
        model, k = subject.weights, len(subject.classes)
        assert model is not None
        generator = draws(seed, 51)
        largest = np.full(k, 1e-6)
        parts = torch.split(torch.arange(k), most_at_once(subject.sample_shape, k))
        for start in range(self.starts):
            for number, labels in enumerate(parts):
                pixels = torch.randn((len(labels), *subject.sample_shape), generator=generator).requires_grad_()
                optimizer = torch.optim.Adam([pixels], lr=self.learning_rate)
                own = torch.eye(k, dtype=torch.bool)[labels]
                for step in range(self.steps):
                    logits = model(255 * torch.sigmoid(pixels))
                    margins = logits[own] - logits.masked_fill(own, -torch.inf).amax(dim=1)
                    largest[labels] = np.maximum(largest[labels], margins.detach().double().numpy())
                    [pixels.grad] = torch.autograd.grad(-margins.sum(), [pixels])
                    optimizer.step()
                    done = (start * len(parts) + number) * self.steps + step + 1
                    on_progress(Progress(phase=self.name, done=done, total=self.starts * len(parts) * self.steps))
        return largest


def margin_p_values(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how often the highest of K margins of a clean model stands out as much as each, ``(K,)``.

    Leaving the highest out of the fit makes it stand out of what is left, whatever it is: margins drawn from the fitted
    distribution, and judged in the same way, say how much.
    """
    said, shape = outlying(margins)
    drawn = np.random.default_rng(0).gamma(shape, size=(SIMULATED, len(margins)))
    usual = np.sort(outlying(drawn)[0].min(axis=-1))
    p_values: NDArray[np.float64] = (1 + np.searchsorted(usual, said, side="right")) / (SIMULATED + 1)
    return p_values


def outlying(margins: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how rare each margin is, ``(…, K)``, by a gamma fit to all but the highest, and the shape of that fit."""
    rest = np.sort(margins, axis=-1)[..., :-1]
    # By the moments: a likelihood fit of a dozen values runs away now and then.
    mean, variance = rest.mean(axis=-1), np.maximum(rest.var(axis=-1, ddof=1), 1e-12)
    shape = mean**2 / variance
    rare = stats.gamma.sf(margins, a=shape[..., None], scale=(variance / mean)[..., None])
    return np.asarray(rare, dtype=np.float64), shape
