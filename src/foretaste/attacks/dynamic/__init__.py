"""The input-dependent attack: a generator draws another trigger for each image."""

from foretaste.attacks.dynamic.dynamic import Dynamic

__all__ = ["Dynamic"]
