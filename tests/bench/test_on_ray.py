"""Cells on a cluster of two machines, of which one goes away."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foretaste.bench import on_ray, specification
from foretaste.bench.artefacts import Store
from foretaste.bench.case import DataSets
from foretaste.bench.records import Record, read_record

from .conftest import Finished

ray = pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of which there are many


@pytest.fixture
def cluster(place: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a head that runs no tasks and two nodes that run one each, which find ``bench_methods``."""
    from ray.cluster_utils import Cluster

    source = Path(specification.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(source), str(finished.folder)]))
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster: Any = Cluster(initialize_head=True, head_node_args={**small, "num_cpus": 0, "include_dashboard": False})
    cluster.pair = [cluster.add_node(**small) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.ray
def test_a_machine_that_goes_away_loses_no_finished_cell(place: Path, finished: Finished, cluster: Any) -> None:
    wanted = specification.read(place / "spec.toml", DataSets())
    store, records, kept = Store(str(place / "anew")), list[Record](), dict[str, bytes]()

    def kill(record: Record) -> None:
        records.append(record)
        if len(records) == 2:
            kept.update({path.name: path.read_bytes() for path in (place / "anew/cells").glob("*.json")})
            cluster.remove_node(cluster.pair[0], allow_graceful=False)

    on_ray.run(wanted, store, "ignored", on_record=kill)
    assert len(records) == len(wanted.cells)
    assert len(kept) >= 2
    assert all((place / "anew/cells" / name).read_bytes() == content for name, content in kept.items())
    for record in finished.records.values():
        found = read_record(store, record.cell.key)
        assert found is not None
        assert found.failed == record.failed
        assert found.figures.get("tpr") == record.figures.get("tpr")
        assert found.figures.get("accuracy_after") == record.figures.get("accuracy_after")
