"""The reflection attack: reflections of other pictures as the trigger."""

from foretaste.attacks.refool.refool import Refool

__all__ = ["Refool"]
