"""The weights of the last layer: a first look that takes milliseconds, and not a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from foretaste.errors import UsageError
from foretaste.inspectors.diagnosis import Evidence, Finding, Subject
from foretaste.inspectors.nulls import anomaly_indices, outlier_p_values
from foretaste.progress import OnProgress
from foretaste.samples import Samples


@dataclass(frozen=True, kw_only=True)
class FinalLayer:
    """Look for the label whose weights in the last linear layer stand out.

    Features after a ReLU are not negative, so a trigger that drives a few of them high needs large positive weights to
    its target: the mean of the target's weights lies above the other labels' (trojan signatures, Fields et al. 2021,
    arXiv:2106.04715). Static indicators of the last layer are also what DFBScanner (arXiv:2605.18907) combines; this is
    the simplest of them. It misses backdoors that are spread over many features, and takes a class of its own kind
    for a target.
    """

    name: ClassVar[str] = "final-layer"
    summary: ClassVar[str] = "weights of the last layer; a first look in milliseconds (Fields et al. 2021)"
    needs_weights: ClassVar[bool] = True
    fewest_clean: ClassVar[int] = 0
    fewest_classes: ClassVar[int] = 4

    def look(self, subject: Subject, clean: Samples | None, *, seed: int, on_progress: OnProgress) -> Finding:
        """Compare the labels' mean weights; see ``Inspector``."""
        assert subject.weights is not None
        head = last_linear(subject.weights, len(subject.classes), self.name)
        weights = head.weight.detach().double().numpy()
        means = weights.mean(axis=1)
        indices = anomaly_indices(means)
        p_values = outlier_p_values(indices)
        return Finding(
            evidence=tuple(
                Evidence(
                    target=label,
                    statistic=float(indices[label]),
                    p_value=float(p_values[label]),
                    reason=f"its weights' mean is {means[label]:.3g}; the classes' median is {np.median(means):.3g}",
                )
                for label in range(len(means))
            )
        )


def last_linear(model: nn.Module, n_classes: int, method: str) -> nn.Linear:
    """Return the last linear layer, whose outputs are the logits.

    Args:
        model: the model.
        n_classes: how many classes it has.
        method: what asks for it, for messages.

    Raises:
        UsageError: the model ends in something else.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1].out_features != n_classes:
        raise UsageError(f"{method} needs a model that ends in a linear layer with one output per class")
    return linear[-1]
