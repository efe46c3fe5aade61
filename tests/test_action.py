"""The GitHub action: its steps, run as a script; and the hooks for pre-commit."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonschema import validate

from foretaste import cli
from foretaste.io.signs import draw_signs

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step.get("id", step.get("uses")): step for step in ACTION["runs"]["steps"]}
DESCRIBED = {"type": "object", "required": ["description"], "properties": {"description": {"type": "string"}}}
SCHEMA = {
    "type": "object",
    "required": ["name", "description", "inputs", "outputs", "runs"],
    "properties": {
        "inputs": {"additionalProperties": {**DESCRIBED, "properties": {"default": {"type": "string"}}}},
        "outputs": {"additionalProperties": {**DESCRIBED, "required": ["description", "value"]}},
        "runs": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "using": {"const": "composite"},
                "steps": {
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "id": {"type": "string"},
                            "if": {"type": "string"},
                            "uses": {"type": "string", "pattern": "^[a-z-]+/[a-z/-]+@v[0-9]+$"},
                            "with": {"type": "object"},
                            "shell": {"const": "bash"},
                            "env": {"type": "object", "additionalProperties": {"type": "string"}},
                            "run": {"type": "string"},
                        },
                        "oneOf": [{"required": ["uses"]}, {"required": ["run", "shell", "id"]}],
                    }
                },
            },
        },
    },
}
"""What an action's description must look like, as far as this one goes."""

STUB = """#!{python}
import sys
from foretaste import cli
sys.exit(cli.main())
"""


def script(
    step: str, folder: Path, inputs: dict[str, str], outputs: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a step as the runner does: inputs and outputs put into its variables, and bash with its options."""
    given = {name: one.get("default", "") for name, one in ACTION["inputs"].items()} | inputs
    contexts = {f"inputs.{name}": value for name, value in given.items()}
    contexts |= {f"steps.run.outputs.{name}": value for name, value in outputs.items()}
    contexts |= {"github.action_path": str(ROOT), "runner.temp": str(folder / "temp")}

    def filled(text: str) -> str:
        return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: contexts.get(found[1], ""), text)

    variables = {name: filled(value) for name, value in STEPS[step].get("env", {}).items()}
    variables |= {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", STEPS[step]["run"]],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def outputs(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / "output").read_text().splitlines())


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with a poisoned set, and the command where the action installs it."""
    command = tmp_path / "temp" / "foretaste" / "bin" / "foretaste"
    command.parent.mkdir(parents=True)
    command.write_text(STUB.format(python=sys.executable))
    command.chmod(0o755)
    signs = draw_signs(60, seed=0)
    np.savez(tmp_path / "two classes.npz", x=signs.inputs, y=np.arange(60) % 2)
    return tmp_path


def test_the_action_is_described_as_github_asks() -> None:
    validate(ACTION, SCHEMA)
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text(encoding="utf-8")))
    assert used == set(ACTION["inputs"])
    # What comes from outside reaches a shell only as a variable.
    assert not any("${{" in step.get("run", "") for step in ACTION["runs"]["steps"])


def test_a_run_leaves_its_report_its_log_and_its_exit_code(workspace: Path) -> None:
    inputs = {
        "source": "two classes.npz",
        "arguments": "--method 'pixel-spectral-signatures' --seed 3",
        "fail-on": "never",
    }
    run = script("run", workspace, inputs, {})
    assert run.returncode == 0, run.stderr
    assert outputs(workspace) == {"code": "0", "report": "foretaste-report/report.html", "sarif": "foretaste.sarif"}
    assert (workspace / "foretaste-report" / "report.html").is_file()
    assert json.loads((workspace / "foretaste-report" / "summary.json").read_text())["seed"] == 3
    assert json.loads((workspace / "foretaste.sarif").read_text())["version"] == "2.1.0"
    told = (workspace / "summary.md").read_text()
    assert told.startswith("### foretaste cleanse\n\n    ")
    assert "report: foretaste-report/report.html" in told
    assert script("gate", workspace, inputs, outputs(workspace)).returncode == 0


def test_a_run_that_fails_leaves_no_log_and_fails_the_job(workspace: Path) -> None:
    inputs = {"source": "none.npz; touch ran", "arguments": "--method $(touch ran)"}
    run = script("run", workspace, inputs, {})
    assert run.returncode == 0
    assert outputs(workspace) == {"code": "4"}
    assert not (workspace / "ran").exists()
    assert "foretaste: error: " in (workspace / "summary.md").read_text()
    assert script("gate", workspace, inputs, outputs(workspace)).returncode == 4


def test_another_command_is_refused(workspace: Path) -> None:
    run = script("run", workspace, {"source": "signs", "command": "poison"}, {})
    assert run.returncode == 4
    assert "::error::command must be cleanse, inspect or guard scan, not poison" in run.stdout


def test_what_is_uploaded_is_what_was_written_and_no_samples() -> None:
    report, log = STEPS["actions/upload-artifact@v4"], STEPS["github/codeql-action/upload-sarif@v3"]
    assert "parquet" not in report["with"]["path"]
    assert log["with"]["sarif_file"] == "${{ inputs.sarif }}"
    for step, output in ((report, "report"), (log, "sarif")):
        assert step["if"] == f"steps.run.outputs.{output} != '' && inputs.upload-{output} == 'true'"


def test_the_hooks_are_commands_that_run(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    for hook in hooks:
        assert set(hook) == {"id", "name", "entry", "language", "pass_filenames", "require_serial", "stages"}
        command, *verb = shlex.split(hook["entry"])
        assert command in scripts
        assert hook["id"] == "-".join([command, *verb])
        assert cli.main([*verb, "--help"]) == 0
        assert "--sarif" in capsys.readouterr().out
    [cleanse] = [hook["entry"] for hook in hooks if hook["id"] == "foretaste-cleanse"]
    source, out = str(workspace / "two classes.npz"), workspace / "out"
    given = [source, "--method", "pixel-spectral-signatures", "--out", str(out)]
    assert cli.main([*shlex.split(cleanse)[1:], *given, "--fail-on", "never"]) == 0
    assert (out / "report.html").is_file()


def dockerfile(path: Path) -> list[Any]:
    """Return the instructions of a Dockerfile, each as its word and the rest, lines that go on joined."""
    text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
    return [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_is_made_of_a_wheel_and_runs_as_nobody_in_particular() -> None:
    steps = dockerfile(ROOT / "Dockerfile")
    words = [word for word, _ in steps]
    assert words.count("FROM") == 2
    second = len(words) - words[::-1].index("FROM") - 1
    assert [rest for word, rest in steps[second:] if word == "COPY"] == ["--from=build /opt/foretaste /opt/foretaste"]
    assert words.index("USER") < words.index("ENTRYPOINT")
    last = dict(steps[second:])
    assert last["USER"] == "10001"
    assert json.loads(last["ENTRYPOINT"]) == ["foretaste"]
    assert cli.main(json.loads(last["CMD"])) == 0
    install = next(rest for word, rest in steps if word == "RUN" and "pip install" in rest)
    assert "--constraint constraints.txt /wheels/*.whl" in install
    gateway = dockerfile(ROOT / "deploy" / "Dockerfile")
    assert {rest.split()[0] for word, rest in steps + gateway if word == "FROM"} == {"python:3.12-slim"}


def test_the_images_are_built_from_what_the_wheel_needs_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert let_in == {"src", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in let_in)
