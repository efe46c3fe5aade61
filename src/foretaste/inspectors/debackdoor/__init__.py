"""DeBackdoor searches for a trigger by questions alone (Popovic et al. 2025, arXiv:2503.21305)."""

from foretaste.inspectors.debackdoor.debackdoor import DeBackdoor

__all__ = ["DeBackdoor"]
