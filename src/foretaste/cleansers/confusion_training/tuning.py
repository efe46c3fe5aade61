"""Numbers of Confusion Training that a user has no reason to set; the ablation changes them one by one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was tuned and is no hyperparameter of the method's idea.

    Attributes:
        fewest_passes: of the base model over the set at least: with fewer it would not know the classes.
        most_passes: of the base model over the set at most: with more it would learn rare marks as natural.
        later_steps: share of the steps that is enough in later rounds, whose images are not altered.
        shift: images are moved by up to this many pixels each way, which hides small marks at one place.
        ridge: L2 penalty on the calibration's matrix, for logits of variance 1: with less it learns marks that the base
            model hardly knows, and WaNet and dynamic triggers lose most of their evidence.
        view_passes: of the linear views over the set at least.
        network_passes: of the convolutional view over the distilled set at most.
        smallest_distilled: samples that agree with the base model in the distilled set, if the set holds so many.
        excluded: samples that score above this are excluded from the next base model; the cut is at 1.
        turns: of self-training: what one finds, the detectors of the next learn from.
        detector_scale: log odds of a detector that count as much as a score at the cut.
    """

    fewest_passes: int = 6
    most_passes: int = 50
    later_steps: float = 2 / 3
    shift: int = 3
    ridge: float = 0.1
    view_passes: int = 3
    network_passes: int = 10
    smallest_distilled: int = 2000
    excluded: float = 0.75
    turns: int = 3
    detector_scale: float = 2.0
