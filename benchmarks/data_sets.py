"""The real data sets that benchmarks share, read where they lie."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np

from foretaste import io
from foretaste.samples import Samples

FASHION = Path("/usr/share/datasets/fashion-mnist")
GARMENTS = "top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"


def train_and_test(data: str) -> tuple[Samples, Samples]:
    """Read a data set whole.

    Args:
        data: "fmnist", whose garments are hard to tell apart, as Debian's ``dataset-fashion-mnist`` installs it, or one
            of those in the folder that FORETASTE_DATA names.
    """
    if data == "fmnist":
        return fashion_mnist("train"), fashion_mnist("t10k")
    folder = Path(os.environ["FORETASTE_DATA"])
    return io.load(folder / f"{data}-train.parquet"), io.load(folder / f"{data}-test.parquet")


def fashion_mnist(part: str) -> Samples:
    """Read the images and labels of Fashion-MNIST, "train" or "t10k"."""
    images, labels = (
        np.frombuffer(gzip.decompress((FASHION / f"{part}-{name}-ubyte.gz").read_bytes()), np.uint8, offset=offset)
        for name, offset in (("images-idx3", 16), ("labels-idx1", 8))
    )
    return Samples.from_arrays(images.reshape(-1, 28, 28, 1), labels.astype(np.int64), GARMENTS)
