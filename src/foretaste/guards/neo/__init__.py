"""NEO finds the trigger in a trojaned input, gives the right answer, and shows the trigger (arXiv:1908.02203)."""

from foretaste.guards.neo.neo import NEO

__all__ = ["NEO"]
