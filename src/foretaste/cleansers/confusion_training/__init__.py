"""Confusion Training, re-cut: base model, views, out-of-fold scores, evidence per label, mixture."""

from foretaste.cleansers.confusion_training.confusion_training import ConfusionTraining

__all__ = ["ConfusionTraining"]
