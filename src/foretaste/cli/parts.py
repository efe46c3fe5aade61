"""Training set or test set, where one source holds both."""

from __future__ import annotations

from pathlib import Path


def part(source: str, wanted: str) -> str:
    """Return the split to read: the wanted one of a source with splits, the only one ("train") of any other."""
    from foretaste.io.named import NAMES
    from foretaste.io.saved import has_splits

    return wanted if source in NAMES or has_splits(Path(source)) else "train"
