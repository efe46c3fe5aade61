"""Neural Cleanse's repair: find the trigger, and teach the model that it means nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from foretaste.classifiers.torch_module import TorchModule
from foretaste.errors import UsageError
from foretaste.inspectors import subject_of
from foretaste.inspectors.inversion import Inverted
from foretaste.inspectors.neural_cleanse import NeuralCleanse, size_anomalies
from foretaste.inspectors.nulls import outlier_p_values
from foretaste.progress import OnProgress
from foretaste.repairs.repaired import Mended
from foretaste.repairs.tuning import tune
from foretaste.samples import Samples
from foretaste.training import check


@dataclass(frozen=True, kw_only=True)
class UnlearnTrigger:
    """Invert triggers, stamp them on clean images under their true labels, and fine-tune (Wang et al., S&P 2019).

    The triggers are those of the labels that stand out; if none does, that of the most suspicious one, and a note says
    so. Where no label has a trigger, the model stays as it is, and a note says that.

    Attributes:
        share: of the clean images that carry one trigger while the model is tuned, in (0, 1]; the paper's 0.2. Each
            trigger has images of its own draw, of other labels than its target.
        epochs: passes over the clean set, ≥ 1.
        learning_rate: the highest, > 0.
        batch_size: samples per step, ≥ 2.
        false_alarm_rate: p-value up to which a label stands out, in (0, 1).

    Raises:
        UsageError: a field is out of range.
    """

    name: ClassVar[str] = "neural-cleanse"
    summary: ClassVar[str] = "inverts the trigger, then unlearns it (Wang et al. 2019)"
    needs_training_set: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = NeuralCleanse.fewest_clean

    share: float = 0.2
    epochs: int = 10
    learning_rate: float = 0.02
    batch_size: int = 32
    false_alarm_rate: float = 0.05

    def __post_init__(self) -> None:
        check(0 < self.share <= 1, "share must be in (0, 1]")
        check(self.epochs >= 1, "epochs must be 1 or more")
        check(self.learning_rate > 0, "learning_rate must be above 0")
        check(self.batch_size >= 2, "batch_size must be 2 or more")
        check(0 < self.false_alarm_rate < 1, "false_alarm_rate must be in (0, 1)")

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        """Invert and unlearn; see ``Repair``."""
        assert clean is not None
        if clean.images is None:
            raise UsageError("neural-cleanse inverts triggers in images, and these samples are feature vectors")
        subject = subject_of(TorchModule(net), clean, net)
        labels = list(range(len(subject.classes)))
        inverted = NeuralCleanse().invert(subject, clean, labels, seed, on_progress)
        if not any(one.succeeded for one in inverted):
            note = "no trigger was found that forces a label, so none was unlearned: the model is as it was"
            return Mended(net=net, facts={"unlearned": []}, notes=(note,))
        indices = size_anomalies(inverted)
        suspects = np.flatnonzero(outlier_p_values(indices) <= self.false_alarm_rate).tolist()
        notes: tuple[str, ...] = ()
        if not suspects:
            suspects = [int(indices.argmax())]
            notes = ("no label's trigger stood out; that of the most suspicious one was unlearned",)
        stamped = self.stamped(clean, [inverted[label] for label in suspects], seed)
        tune(
            net,
            stamped,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            phase=f"{self.name}: unlearn",
            on_progress=on_progress,
        )
        facts = {"unlearned": [clean.classes[label] for label in suspects]}
        return Mended(net=net, facts=facts, notes=notes)

    def stamped(self, clean: Samples, triggers: list[Inverted], seed: int) -> Samples:
        """Return the clean images, a share of which carries each of the triggers, under their true labels.

        The images are drawn for each trigger by itself, so some may carry several.
        """
        images = np.array(clean.inputs)
        rng = np.random.default_rng([seed, 71])
        for trigger in triggers:
            rows = np.flatnonzero(clean.labels != trigger.target)
            chosen = rng.permutation(rows)[: max(1, round(self.share * len(clean)))]
            images[chosen] = trigger.stamp(images[chosen])
        return Samples(clean.labels, clean.classes, clean.ids, images=images)
