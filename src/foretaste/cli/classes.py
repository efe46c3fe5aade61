"""Number labels as a model or an attack does."""

from __future__ import annotations

from foretaste.samples import renumbered

__all__ = ["renumbered"]
