"""NEO finds the trigger in a trojaned input, gives the right answer, and shows the trigger (arXiv:1908.02203)."""

from foretaste.guards.neo.flagged import reconstruct_triggers, stand_ins
from foretaste.guards.neo.learn import learn
from foretaste.guards.neo.neo import NEO
from foretaste.guards.neo.paper import NEOPaper
from foretaste.guards.neo.persistence import load, save
from foretaste.guards.neo.registry import Registry
from foretaste.guards.neo.screener import NEOScreener, Revision

__all__ = [
    "NEO",
    "NEOPaper",
    "NEOScreener",
    "Registry",
    "Revision",
    "learn",
    "load",
    "reconstruct_triggers",
    "save",
    "stand_ins",
]
