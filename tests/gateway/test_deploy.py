"""The files in ``deploy`` fit each other, the command's options, and what hardened clusters ask for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
import yaml
from jsonschema import validate

from foretaste.cli import app

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve

DEPLOY = Path(__file__).parents[2] / "deploy"

NAMED = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
PROBE = {
    "type": "object",
    "required": ["httpGet"],
    "properties": {"httpGet": {"type": "object", "required": ["path", "port"]}},
}
CONTAINER = {
    "type": "object",
    "required": ["name", "image"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9-]+$"},
        "image": {"type": "string"},
        "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        "command": {"type": "array", "items": {"type": "string"}},
        "env": {
            "type": "array",
            "items": {
                **NAMED,
                "oneOf": [
                    {"required": ["value"], "properties": {"value": {"type": "string"}}},
                    {"required": ["valueFrom"]},
                ],
            },
        },
        "ports": {"type": "array", "items": {"type": "object", "required": ["containerPort"]}},
        "startupProbe": PROBE,
        "readinessProbe": PROBE,
        "livenessProbe": PROBE,
        "resources": {"type": "object", "properties": {"requests": {"type": "object"}, "limits": {"type": "object"}}},
        "securityContext": {"type": "object"},
        "volumeMounts": {"type": "array", "items": {"type": "object", "required": ["name", "mountPath"]}},
    },
}
"""Containers as Kubernetes' core/v1 has them, as far as the manifests here go."""

LISTENING = {"FORETASTE_HOST", "FORETASTE_PORT", "FORETASTE_STATE"}
"""What the image sets."""


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def pods(name: str) -> Any:
    first = documents(name)[0]
    return first["spec"]["predictor"] if name == "kserve.yaml" else first["spec"]["template"]["spec"]


def variables() -> set[str]:
    """Return the environment variables that the command reads."""
    guard = typer.main.get_command(app).commands["guard"]  # type: ignore[attr-defined]
    return {f"FORETASTE_{option.name.upper()}" for option in guard.commands["serve"].params}


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kserve.yaml"])
def test_manifests(name: str) -> None:
    spec = pods(name)
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in spec["containers"]:
        validate(container, CONTAINER)
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    gateway = next(one for one in spec["containers"] if one["image"].startswith("foretaste"))
    given = {one["name"] for one in gateway["env"]}
    assert given <= variables()
    assert {"FORETASTE_UPSTREAM", "FORETASTE_CLEAN", "FORETASTE_REVIEW_TOKEN"} <= given
    secret = {one["name"] for one in gateway["env"] if "secretKeyRef" in one.get("valueFrom", {})}
    assert "FORETASTE_REVIEW_TOKEN" in secret
    hardened = gateway["securityContext"]
    assert hardened["readOnlyRootFilesystem"] is True
    assert hardened["allowPrivilegeEscalation"] is False
    assert hardened["runAsUser"] == 10001
    assert hardened["capabilities"] == {"drop": ["ALL"]}
    # What it writes to, on a read-only root file system.
    assert {"/data", "/tmp"} <= {mount["mountPath"] for mount in gateway["volumeMounts"]}


def test_the_service_finds_the_pods() -> None:
    deployment, service = documents("kubernetes.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = {port["name"] for one in pods("kubernetes.yaml")["containers"] for port in one.get("ports", [])}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_the_probes_are_answered(serve: "Serve") -> None:
    running = serve()
    paths = {
        probe["httpGet"]["path"]
        for name in ("kubernetes.yaml", "kserve.yaml")
        for container in pods(name)["containers"]
        for key, probe in container.items()
        if key.endswith("Probe")
    }
    assert paths == {"/v2/health/live", "/v2/health/ready"}
    for path in (
        *paths,
        documents("kubernetes.yaml")[0]["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"],
    ):
        assert running.client.get(running.url + path).status_code == 200


def test_compose() -> None:
    [compose] = documents("compose.yaml")
    assert set(compose) == {"name", "services", "volumes"}
    gateway = compose["services"]["gateway"]
    assert set(gateway["environment"]) <= variables()
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    named = {volume.partition(":")[0] for one in compose["services"].values() for volume in one["volumes"]}
    assert {name for name in named if not name.startswith(".")} == set(compose["volumes"])
    assert set(gateway["depends_on"]) <= set(compose["services"])
    assert (DEPLOY / gateway["build"]["context"] / gateway["build"]["dockerfile"]).is_file()


def test_the_image_runs_as_nobody_in_particular() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert "USER 10001" in lines
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    assert lines.index("USER 10001") < next(n for n, line in enumerate(lines) if line.startswith("ENTRYPOINT"))
    text = "\n".join(lines)
    assert {name for name in LISTENING if f"{name}=" in text} == LISTENING <= variables()
