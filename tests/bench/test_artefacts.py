import os
import time
from pathlib import Path

import numpy as np
import pytest

from foretaste.bench import artefacts, on_ray
from foretaste.bench.artefacts import Artefact, Store
from foretaste.bench.cell import Cell, Choice, DataSet
from foretaste.errors import ForetasteError


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_an_artefact_is_made_once_wherever_it_is_kept(kind: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out") if kind == "folder" else f"memory://{tmp_path.name}")
    assert store.read("cells/a.json") is None
    assert not store.exists("cells/a.json")
    store.write("cells/a.json", b"{}")
    assert store.exists("cells/a.json")
    assert store.read("cells/a.json") == b"{}"
    calls = []

    def make() -> Artefact:
        calls.append(1)
        return Artefact({"x": np.arange(3), "none": np.zeros((0, 4), np.uint8)}, {"y": 2.5, "z": None})

    for _ in range(2):
        kept = store.once("thing", "k", make)
        assert kept.arrays["x"].tolist() == [0, 1, 2]
        assert kept.arrays["none"].shape == (0, 4)
        assert kept.facts == {"y": 2.5, "z": None}
    assert len(calls) == 1


def test_a_folder_for_checkpoints_is_there_until_it_is_forgotten(tmp_path: Path) -> None:
    for store in (Store(str(tmp_path)), Store("memory://x")):
        (store.workdir("k") / "checkpoint").touch()
        assert (store.workdir("k") / "checkpoint").exists()
        store.forget("k")
        assert not list(store.workdir("k").iterdir())
        store.forget("k")


def test_a_worker_removes_what_runs_left_on_its_machine_long_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artefacts, "gettempdir", lambda: str(tmp_path))
    store, long_ago = Store("memory://x"), time.time() - 25 * 3600
    left, resumed, busy, fresh = (store.workdir(name) for name in ("left", "resumed", "busy", "fresh"))
    for folder in (left, resumed, busy):
        (folder / "checkpoint").touch()
        for path in (folder / "checkpoint", folder):
            os.utime(path, (long_ago, long_ago))
    (busy / "checkpoint").touch()
    store.workdir("resumed")
    nothing = Choice(label="", name="", settings={})
    cell = Cell(
        data=DataSet(label="x", source="x"),
        imperfections=nothing,
        attack=None,
        network=nothing,
        door="cleansers",
        conditions={},
        defence=nothing,
        oracle=False,
        seed=0,
    )
    on_ray.case_of(cell.model_dump_json(), "memory://x", "nowhere")
    assert not left.exists()
    assert all(folder.exists() for folder in (resumed, busy, fresh))
    # In a folder of results a killed run may go on whenever it likes.
    here = Store(str(tmp_path / "out"))
    os.utime(here.workdir("left"), (long_ago, long_ago))
    here.sweep()
    assert (tmp_path / "out/work/left").exists()


def test_a_place_that_nothing_can_write_to_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ForetasteError, match="cannot use nowhere://x"):
        Store("nowhere://x").write("a", b"")
    (tmp_path / "file").touch()
    with pytest.raises(ForetasteError, match="cannot write"):
        Store(str(tmp_path / "file")).write("a", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ForetasteError, match="cannot read"):
        Store(str(tmp_path)).read("folder")
