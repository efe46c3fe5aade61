"""Reading and writing: samples from every kind of source, parquet files, ground truth."""

from foretaste.io.atomic import atomic_json, atomic_path, atomic_text
from foretaste.io.decoding import Loaded, Skipped
from foretaste.io.parquet_writer import write_parquet
from foretaste.io.signs import draw_signs
from foretaste.io.sources import load, read
from foretaste.io.truth import Marks, Truth, read_truth, write_truth

__all__ = [
    "Loaded",
    "Marks",
    "Skipped",
    "Truth",
    "atomic_json",
    "atomic_path",
    "atomic_text",
    "draw_signs",
    "load",
    "read",
    "read_truth",
    "write_parquet",
    "write_truth",
]
