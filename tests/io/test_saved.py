import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste import ForetasteError, UsageError, io

Encode = Callable[..., bytes]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def save(folder: Path, encode: Encode, rows: int = 6, shards: int = 2) -> Path:
    """Write what ``datasets.Dataset.save_to_disk`` writes."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    schema = pa.schema([("img", IMAGE), ("label", pa.int64())])
    for shard, name in enumerate(names):
        mine = range(shard, rows, shards)
        table = pa.table(
            {
                "img": pa.array([{"bytes": encode(colour=(i, 0, 0)), "path": None} for i in mine], IMAGE),
                "label": pa.array([i % 2 for i in mine]),
            },
            schema=schema,
        )
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table, max_chunksize=2)
    features = {"img": {"_type": "Image"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def test_reads_all_shards_in_order(tmp_path: Path, encode: Encode) -> None:
    samples = io.load(save(tmp_path / "set", encode))
    assert samples.images is not None
    assert samples.images[:, 0, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]
    assert samples.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert samples.classes == ("a", "b")


def test_reads_one_split_of_a_dictionary(tmp_path: Path, encode: Encode) -> None:
    save(tmp_path / "sets" / "train", encode, rows=6)
    save(tmp_path / "sets" / "test", encode, rows=4)
    (tmp_path / "sets" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert len(io.load(tmp_path / "sets", split="train")) == 6
    with pytest.warns(UserWarning, match="has splits, and train was read"):
        assert len(io.load(tmp_path / "sets")) == 6
    assert len(io.load(tmp_path / "sets", split="test")) == 4
    with pytest.raises(UsageError, match="no split other; it has train, test"):
        io.load(tmp_path / "sets", split="other")


def test_a_lone_set_is_read_whole(tmp_path: Path, encode: Encode) -> None:
    assert len(io.load(save(tmp_path / "set", encode))) == 6
    with pytest.raises(UsageError, match="has no splits; leave --split out"):
        io.load(tmp_path / "set", split="test")


@pytest.mark.parametrize(
    "state", ["", "[]", "{}", '{"_data_files": 3}', '{"_data_files": []}', '{"_data_files": [{"filename": "../x"}]}']
)
def test_damaged_state(tmp_path: Path, encode: Encode, state: str) -> None:
    folder = save(tmp_path / "set", encode)
    (folder / "state.json").write_text(state)
    with pytest.raises(ForetasteError, match=r"state\.json"):
        io.load(folder)


def test_missing_shard(tmp_path: Path, encode: Encode) -> None:
    folder = save(tmp_path / "set", encode)
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(ForetasteError, match="cannot read"):
        io.load(folder)


@settings(max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), patch=st.binary(max_size=8))
def test_damaged_files_read_or_fail_in_the_known_way(
    tmp_path_factory: pytest.TempPathFactory, place: float, patch: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        import numpy as np

        from foretaste.io.images import encode_png

        save(folder, lambda colour: encode_png(np.full((4, 4, 3), colour, np.uint8)), shards=1)
        (folder / "whole").write_bytes((folder / "data-00000-of-00001.arrow").read_bytes())
    whole = (folder / "whole").read_bytes()
    at = int(place * len(whole))
    (folder / "data-00000-of-00001.arrow").write_bytes(
        whole[:at] + patch + whole[at + len(patch) :] if patch else whole[:at]
    )
    with suppress(ForetasteError):
        assert len(io.read(folder).samples)
