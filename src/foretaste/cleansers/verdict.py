"""What every cleanser returns, and what every cleanser is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Mask, Samples

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class ClassEvidence:
    """Why one class was condemned or cleared.

    Attributes:
        label: the class, in [0, K).
        n_samples: samples of the inspected set that carry this label.
        n_suspects: those that scored as suspects, whatever became of the class.
        n_flagged: those that were flagged; 0 unless the class is condemned.
        statistic: the figure that decided; higher is more suspicious.
        threshold: the class is not condemned unless ``statistic`` reaches it.
        condemned: whether poison was found in the class.
        reason: one sentence for people.
    """

    label: int
    n_samples: int
    n_suspects: int
    n_flagged: int
    statistic: float
    threshold: float
    condemned: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Round:
    """How the inspected samples looked after one round of a cleanser that works in rounds.

    Attributes:
        name: for people ("round 2").
        losses: ``float32 (N,)``, cross-entropy of each own label in nats, or what stands for it; low is suspicious.
        kept: ``bool (N,)``, samples that the round kept as possible poison.
        seconds: wall time of the round.
    """

    name: str
    losses: NDArray[np.float32]
    kept: Mask
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Detection:
    """How a verdict compares with the truth.

    Attributes:
        tpr: share of the poison that was flagged, in [0, 1]; NaN without poison.
        fpr: share of the rest that was flagged, in [0, 1].
        auroc: area under the ROC curve of the scores, in [0, 1]; NaN without poison.
    """

    tpr: float
    fpr: float
    auroc: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What a cleanser says of each sample, and why.

    Attributes:
        scores: ``float32 (N,)``; higher is more suspicious. The scale belongs to the method.
        flagged: ``bool (N,)``, the samples to take out.
        classes: evidence, one entry per class in label order.
        method: the cleanser's registered name.
        seed: what the run's random numbers came from.
        seconds: wall time.
        notes: sentences that a reader of the verdict should know ("no clean set was given: …").
        rounds: the method's rounds, oldest first; empty for methods without rounds.
        embedding: ``float32 (N, 2)``, where the samples lie in the space the method judged in, or None.
    """

    scores: NDArray[np.float32]
    flagged: Mask
    classes: tuple[ClassEvidence, ...]
    method: str
    seed: int
    seconds: float
    notes: tuple[str, ...] = ()
    rounds: tuple[Round, ...] = ()
    embedding: NDArray[np.float32] | None = None

    @property
    def suspect_classes(self) -> tuple[int, ...]:
        """Labels of the condemned classes."""
        return tuple(evidence.label for evidence in self.classes if evidence.condemned)

    def to_frame(self, samples: Samples) -> pa.Table:
        """Return the verdict as a table with one row per sample, in the samples' order.

        It is a ``pyarrow.Table``: ``to_pandas()`` makes a pandas data frame of it, where pandas is installed. ``id``,
        ``label``, ``score`` and ``flagged`` are the columns of ``verdicts.parquet``; a higher ``score`` is more
        suspicious. The others follow the conventions of cleanlab's Datalab: ``class`` is the label's name,
        ``is_poison_issue`` is ``flagged``, and a **lower** ``poison_score`` is worse. It is the share of the samples
        that score at least as high, in (0, 1]: 1 / N for the most suspicious one. Samples with equal scores have equal
        ones.

        Args:
            samples: the N samples that were judged.

        Raises:
            UsageError: there are more or fewer of them than the verdict is about.
        """
        import pyarrow as pa
        from scipy.stats import rankdata

        if len(samples) != len(self.scores):
            raise UsageError(f"the verdict is about {len(self.scores)} samples, and not about {len(samples)}")
        names = pa.DictionaryArray.from_arrays(samples.labels, pa.array(samples.classes, pa.string()))
        return pa.table(
            {
                "id": pa.array(samples.ids.tolist(), pa.string()),
                "label": pa.array(samples.labels, pa.int64()),
                "class": names.cast(pa.string()),
                "score": pa.array(self.scores, pa.float32()),
                "flagged": pa.array(self.flagged, pa.bool_()),
                "is_poison_issue": pa.array(self.flagged, pa.bool_()),
                "poison_score": pa.array(rankdata(-self.scores, method="max") / len(samples), pa.float64()),
            }
        )

    def compare(self, poison: Mask) -> Detection:
        """Compare with the ground truth, ``bool (N,)``."""
        from sklearn.metrics import roc_auc_score

        clean = ~poison
        found, some = bool(poison.any()), bool(clean.any())
        return Detection(
            tpr=float(self.flagged[poison].mean()) if found else float("nan"),
            fpr=float(self.flagged[clean].mean()) if some else float("nan"),
            auroc=float(roc_auc_score(poison, self.scores)) if found and some else float("nan"),
        )


@runtime_checkable
class Cleanser(Protocol):
    """A method that finds poison in a training set: a frozen dataclass whose fields are its hyperparameters."""

    name: ClassVar[str]
    """The registered name."""
    summary: ClassVar[str]
    """One line for ``foretaste cleanse --list``."""

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        """Judge every sample.

        Args:
            samples: the set to inspect.
            clean: trusted samples of the same classes and shape, or None.
            seed: where all random numbers come from; same seed, same machine kind, same verdict, bit for bit.
            workdir: an existing folder for checkpoints; a run started again with it goes on where it was. None: no
                checkpoints.
            on_progress: called as the work goes on.

        Raises:
            UsageError: the method cannot work on these samples.
        """
        ...
