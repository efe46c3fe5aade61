from collections.abc import Callable
from pathlib import Path

import pytest

from foretaste import Samples, io

pytestmark = pytest.mark.real_data


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("gtsrb-train", (25_087, 32, 32, 3), 43),
        ("gtsrb-test", (7_949, 32, 32, 3), 43),
        ("cifar10-train", (50_000, 32, 32, 3), 10),
        ("orl-faces", (400, 112, 92, 1), 40),
    ],
)
def test_reads_the_real_sets(real_data: Path, name: str, shape: tuple[int, ...], classes: int) -> None:
    samples = io.load(real_data / f"{name}.parquet")
    assert samples.inputs.shape == shape
    assert len(samples.classes) == classes
    assert not samples.ids[0].isdigit()


def test_rewriting_keeps_every_bit(real_data: Path, tmp_path: Path, same: Callable[[Samples, Samples], None]) -> None:
    faces = io.load(real_data / "orl-faces.parquet")
    io.write_parquet(faces, tmp_path / "x.parquet")
    same(io.load(tmp_path / "x.parquet"), faces)


def test_named_classes_match(real_data: Path) -> None:
    from foretaste.io.named import CIFAR10_CLASSES, GTSRB_CLASSES

    assert io.load(real_data / "gtsrb-test.parquet").classes == GTSRB_CLASSES
    assert io.load(real_data / "cifar10-test.parquet").classes == CIFAR10_CLASSES
