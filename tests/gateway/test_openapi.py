import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve


def test_the_description_is_exact(serve: "Serve", tmp_path: Path) -> None:
    running = serve()
    described = running.client.get(f"{running.url}/openapi.json").json()
    assert set(described["paths"]) == {
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{model}",
        "/v2/models/{model}/ready",
        "/v2/models/{model}/infer",
        "/metrics",
    }
    run = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "run", f"{running.url}/openapi.json"),
            # No schema can say that a tensor has as many values as its shape asks for.
            *("--exclude-checks", "positive_data_acceptance"),
            *("--phases", "examples,fuzzing", "--max-examples", "8", "--seed", "0", "--no-color"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5000:]
    assert httpx.get(f"{running.url}/v2/health/ready").is_success
