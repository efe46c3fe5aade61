"""PSBD: under dropout, the prediction of a clean sample shifts, and that of a poison sample stays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from foretaste.cleansers._base.conclusion import conclude_by_sample, references
from foretaste.cleansers._base.victim import AT_ONCE, OnVictim, Victim
from foretaste.cleansers.verdict import Verdict
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Samples
from foretaste.training import check, draws


@dataclass(frozen=True, kw_only=True)
class PSBD(OnVictim):
    """Flag samples whose prediction dropout does not shift (Li et al. 2025, arXiv:2406.05826).

    Dropout is put behind every stage of the classifier. A sample's prediction shift uncertainty is how much probability
    its predicted label loses, on average over a few passes. The dropout rate is the one at which the predictions of
    clean samples shift most often beyond those of the inspected set, among the rates that shift most of the clean ones.
    Samples below the clean ones' lower quartile are flagged, so about a quarter of the clean samples may be, too.

    Works on images and on feature vectors. A clean set is needed in earnest: samples of the inspected set in its place
    differ from it by chance alone.

    Attributes:
        rates: dropout rates to choose from, each in (0, 1); the paper has 0.1 to 0.9.
        shifted: a rate is taken only if it shifts this share of the clean predictions, in (0, 1), unless none does.
        passes: with dropout, per sample, ≥ 1; the paper has 3.
        quantile: of the clean samples' uncertainties, below which a sample is flagged, in (0, 1); the paper has 0.25.
        substitute: samples of the inspected set that stand in for a missing clean set, ≥ 1.

    Raises:
        UsageError: a value is out of range.
    """

    name: ClassVar[str] = "psbd"
    summary: ClassVar[str] = "predictions that dropout does not shift (arXiv:2406.05826)"

    rates: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    shifted: float = 0.8
    passes: int = 3
    quantile: float = 0.25
    substitute: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.rates) and all(0 < rate < 1 for rate in self.rates), "rates must be in (0, 1)")
        check(0 < self.shifted < 1, "shifted must be in (0, 1)")
        check(self.passes >= 1, "passes must be 1 or more")
        check(0 < self.quantile < 1, "quantile must be in (0, 1)")
        check(self.substitute >= 1, "substitute must be 1 or more")

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample; see ``Cleanser``."""
        start = time.perf_counter()
        trusted, notes = references(samples, clean, self.substitute, np.random.default_rng(seed))
        victim = self.victim(samples, seed, workdir, on_progress)
        of_clean = {rate: shifts(victim, trusted.inputs, rate, self.passes, seed) for rate in self.rates}
        of_all = {rate: shifts(victim, samples.inputs, rate, self.passes, seed, on_progress) for rate in self.rates}
        rate = self.choose({rate: (of_clean[rate][1], of_all[rate][1]) for rate in self.rates})
        usual, uncertain = of_clean[rate][0], of_all[rate][0]
        return conclude_by_sample(
            self.name,
            samples,
            scores=-uncertain,
            limit=-float(np.quantile(usual, self.quantile)),
            unit="probability that the predicted label gains under dropout",
            seed=seed,
            start=start,
            notes=(*notes, f"the dropout rate is {rate:g}"),
        )

    def choose(self, measured: dict[float, tuple[float, float]]) -> float:
        """Return the dropout rate, given which shares of the clean and of all predictions each rate shifts."""
        enough = {rate for rate, (of_clean, _) in measured.items() if of_clean >= self.shifted} or set(measured)
        return max(sorted(enough), key=lambda rate: measured[rate][0] - measured[rate][1])


def shifts(
    victim: Victim,
    inputs: NDArray[np.generic],
    rate: float,
    passes: int,
    seed: int,
    on_progress: OnProgress = silent,
) -> tuple[NDArray[np.float64], float]:
    """Measure what dropout does to the predictions.

    Args:
        victim: what predicts.
        inputs: raw, ``(N, …)``, may be memory-mapped.
        rate: of the dropout, in (0, 1).
        passes: with dropout.
        seed: where the masks come from; the same for each batch's place, whatever the inputs.
        on_progress: called as the work goes on.

    Returns:
        The mean probability that each predicted label loses, ``(N,)``, in [-1, 1], and the share of all passes in which
        the prediction was another.
    """
    losses, moved = np.empty(len(inputs)), 0
    for start in range(0, len(inputs), AT_ONCE):
        batch = np.asarray(inputs[start : start + AT_ONCE])
        whole = softmax(victim.predict(batch).astype(np.float64), axis=1)
        predicted, rows = whole.argmax(axis=1), np.arange(len(batch))
        left = np.zeros(len(batch))
        for number in range(passes):
            with dropout(victim.net.stages, rate, draws(seed, start, number)):
                dropped = softmax(victim.predict(batch).astype(np.float64), axis=1)
            left += dropped[rows, predicted] / passes
            moved += int((dropped.argmax(axis=1) != predicted).sum())
        losses[start : start + len(batch)] = whole[rows, predicted] - left
        on_progress(Progress(phase=f"dropout {rate:g}", done=start + len(batch), total=len(inputs)))
    return losses, moved / (len(inputs) * passes)


@contextmanager
def dropout(modules: tuple[nn.Module, ...], rate: float, generator: torch.Generator) -> Iterator[None]:
    """Zero this share of the modules' outputs and scale up the rest, while the block runs."""

    def drop(_: nn.Module, __: object, output: Tensor) -> Tensor:
        kept = torch.rand(output.shape, generator=generator) >= rate
        return output * kept.to(output.device) / (1 - rate)

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(drop).remove)
        yield
