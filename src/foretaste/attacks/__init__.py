"""Backdoor attacks to test defences with: each poisons a training set and stamps its trigger on inputs."""

from __future__ import annotations

from importlib.metadata import entry_points

from foretaste.attacks.all_to_all import BadNetsAllToAll
from foretaste.attacks.attack import Attack, Poisoned, Trainable
from foretaste.attacks.badnets import BadNets
from foretaste.attacks.blend import Blend
from foretaste.attacks.poisoning import poison_training_set, stamp_inputs
from foretaste.errors import ForetasteError, UsageError

__all__ = [
    "ATTACKS",
    "Attack",
    "BadNets",
    "BadNetsAllToAll",
    "Blend",
    "Poisoned",
    "Trainable",
    "find",
    "names",
    "poison_training_set",
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
    return sorted({*ATTACKS, *(plugin.name for plugin in entry_points(group=PLUGINS))})


def find(name: str) -> type[Attack]:
    """Return the attack of this name; a built-in one goes before another package's.

    Raises:
        UsageError: there is none; the message lists those there are.
        ForetasteError: another package's attack cannot be loaded.
    """
    if name in ATTACKS:
        return ATTACKS[name]
    for plugin in entry_points(group=PLUGINS, name=name):
        try:
            attack: type[Attack] = plugin.load()
        except Exception as error:
            raise ForetasteError(f"the attack {name} from {plugin.value} cannot be loaded: {error}") from error
        return attack
    raise UsageError(f"there is no attack {name!r}; known: {', '.join(names())}")
