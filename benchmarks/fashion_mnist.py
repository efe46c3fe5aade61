"""Fashion-MNIST, whose garments are hard to tell apart, as Debian's ``dataset-fashion-mnist`` installs it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from foretaste.samples import Samples

FOLDER = Path("/usr/share/datasets/fashion-mnist")
GARMENTS = "top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"


def fashion_mnist(part: str) -> Samples:
    """Read the images and labels of Fashion-MNIST, "train" or "t10k"."""
    images, labels = (
        np.frombuffer(gzip.decompress((FOLDER / f"{part}-{name}-ubyte.gz").read_bytes()), np.uint8, offset=offset)
        for name, offset in (("images-idx3", 16), ("labels-idx1", 8))
    )
    return Samples.from_arrays(images.reshape(-1, 28, 28, 1), labels.astype(np.int64), GARMENTS)
