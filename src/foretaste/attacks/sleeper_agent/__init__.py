"""The hidden-trigger attack by gradient matching."""

from foretaste.attacks.sleeper_agent.sleeper_agent import SleeperAgent

__all__ = ["SleeperAgent"]
