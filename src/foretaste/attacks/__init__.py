"""Backdoor attacks to test defences with: each poisons a training set and stamps its trigger on inputs."""

from __future__ import annotations

from foretaste import plugins
from foretaste.attacks._base.attack import Attack, Poisoned, Trainable, TrojansModel, succeeded
from foretaste.attacks._base.fitting import fitted, load_weights, save_weights
from foretaste.attacks._base.poisoning import poison_training_set, stamp_inputs
from foretaste.attacks.adaptive_blend import AdaptiveBlend
from foretaste.attacks.adaptive_k_way import AdaptiveKWay
from foretaste.attacks.adaptive_patch import AdaptivePatch
from foretaste.attacks.advdoor import AdvDoor
from foretaste.attacks.all_to_all import BadNetsAllToAll
from foretaste.attacks.badnets import BadNets
from foretaste.attacks.blend import Blend
from foretaste.attacks.dynamic import Dynamic
from foretaste.attacks.issba import ISSBA
from foretaste.attacks.label_consistent import LabelConsistent
from foretaste.attacks.malware import MalwareConstrained, MalwareUnconstrained
from foretaste.attacks.narcissus import Narcissus
from foretaste.attacks.refool import Refool
from foretaste.attacks.sig import SIG
from foretaste.attacks.sleeper_agent import SleeperAgent
from foretaste.attacks.tact import TaCT
from foretaste.attacks.trojan import Trojan
from foretaste.attacks.trojan_nn import TrojanNN
from foretaste.attacks.untargeted import BadNetsUntargeted
from foretaste.attacks.wanet import WaNet

__all__ = [
    "ATTACKS",
    "ISSBA",
    "SIG",
    "AdaptiveBlend",
    "AdaptiveKWay",
    "AdaptivePatch",
    "AdvDoor",
    "Attack",
    "BadNets",
    "BadNetsAllToAll",
    "BadNetsUntargeted",
    "Blend",
    "Dynamic",
    "LabelConsistent",
    "MalwareConstrained",
    "MalwareUnconstrained",
    "Narcissus",
    "Poisoned",
    "Refool",
    "SleeperAgent",
    "TaCT",
    "Trainable",
    "Trojan",
    "TrojanNN",
    "TrojansModel",
    "WaNet",
    "find",
    "fitted",
    "load_weights",
    "names",
    "poison_training_set",
    "save_weights",
    "stamp_inputs",
    "succeeded",
]

ATTACKS: dict[str, type[Attack]] = {
    "badnets": BadNets,
    "badnets-all-to-all": BadNetsAllToAll,
    "badnets-untargeted": BadNetsUntargeted,
    "blend": Blend,
    "trojan": Trojan,
    "trojan-nn": TrojanNN,
    "label-consistent": LabelConsistent,
    "sig": SIG,
    "dynamic": Dynamic,
    "issba": ISSBA,
    "refool": Refool,
    "wanet": WaNet,
    "tact": TaCT,
    "adaptive-blend": AdaptiveBlend,
    "adaptive-patch": AdaptivePatch,
    "adaptive-k-way": AdaptiveKWay,
    "sleeper-agent": SleeperAgent,
    "narcissus": Narcissus,
    "advdoor": AdvDoor,
    "malware-constrained": MalwareConstrained,
    "malware-unconstrained": MalwareUnconstrained,
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
    return plugins.find(name, ATTACKS, PLUGINS, "attack", "stamp")
