"""The label-consistent attack: perturbed images of the target class with a patch."""

from foretaste.attacks.label_consistent.label_consistent import LabelConsistent

__all__ = ["LabelConsistent"]
