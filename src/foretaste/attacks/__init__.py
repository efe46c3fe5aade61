"""Backdoor attacks to test defences with: each poisons a training set and stamps its trigger on inputs."""

from __future__ import annotations

from foretaste import plugins
from foretaste.attacks.all_to_all import BadNetsAllToAll
from foretaste.attacks.attack import Attack, Poisoned, Trainable
from foretaste.attacks.badnets import BadNets
from foretaste.attacks.blend import Blend
from foretaste.attacks.fitting import fitted, load_weights, save_weights
from foretaste.attacks.poisoning import poison_training_set, stamp_inputs

__all__ = [
    "ATTACKS",
    "Attack",
    "BadNets",
    "BadNetsAllToAll",
    "Blend",
    "Poisoned",
    "Trainable",
    "find",
    "fitted",
    "load_weights",
    "names",
    "poison_training_set",
    "save_weights",
    "stamp_inputs",
]

ATTACKS: dict[str, type[Attack]] = {
    "badnets": BadNets,
    "badnets-all-to-all": BadNetsAllToAll,
    "blend": Blend,
}
"""The built-in attacks by name."""

PLUGINS = "foretaste.attacks"
"""The entry-point group through which other packages add attacks."""


def names() -> list[str]:
    """Return the names of all attacks, built-in and from other packages, sorted."""
    return plugins.names(ATTACKS, PLUGINS)


def find(name: str) -> type[Attack]:
    """Return the attack of this name; a built-in one goes before another package's.

    Raises:
        UsageError: there is none; the message lists those there are.
        ForetasteError: another package's attack cannot be loaded.
    """
    return plugins.find(name, ATTACKS, PLUGINS, "attack")
