"""The wheel, built from what the images are built from, installed as the action installs it, and run elsewhere."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.package


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment | variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel by the image's own command, from the files that its context lets in."""
    context = tmp_path_factory.mktemp("context")
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line.startswith("!"):
            there = ROOT / line[1:]
            if there.is_dir():
                shutil.copytree(there, context / there.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(there, context)
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    [command] = re.findall(r"^RUN python -m (pip wheel .*)$", text, re.MULTILINE)
    words = [str(context / "wheels") if word == "/wheels" else word for word in command.split()]
    # What builds it is installed here already.
    run(sys.executable, "-m", *words, "--quiet", "--no-build-isolation", "--disable-pip-version-check", cwd=context)
    [built] = (context / "wheels").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel by the action's own step into a virtual environment that borrows the packages it needs."""
    folder = tmp_path_factory.mktemp("installed")
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    [step] = [one["run"] for one in action["runs"]["steps"] if one.get("id") == "install"]
    script = step.replace('"$ACTION"', f'"{wheel}"')
    assert script != step
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given = {"PATH": path, "ACTION": str(ROOT), "VENV": str(folder / "venv"), "PIP_NO_DEPS": "1"}
    run("bash", "-e", "-c", script, cwd=folder, **given, PIP_DISABLE_PIP_VERSION_CHECK="1")
    [packages] = (folder / "venv" / "lib").glob("*/site-packages")
    # The .pth files of that folder, the one of an editable foretaste among them, do not count here.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "foretaste"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"foretaste"}
    packaged = {name for name in names if name.startswith("foretaste/")}
    source = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert packaged == source


def test_the_installed_command_runs_outside_the_checkout(command: Path, tmp_path: Path) -> None:
    assert "cleanse" in run(command, "--help", cwd=tmp_path)
    where = "import foretaste; print(foretaste.__file__)"
    assert run(command.with_name("python"), "-c", where, cwd=tmp_path).startswith(str(command.parents[1]))
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=images, y=np.arange(40) % 2)
    options = ["--attack", "badnets", "--rate", "0.1", "--out", "poisoned"]
    run(command, "poison", "set.npz", *options, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert {path.name for path in (tmp_path / "poisoned").iterdir()} == {"train.parquet", "truth.json", "attack.toml"}
