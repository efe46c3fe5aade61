"""Kill `foretaste cleanse` at ten random moments, start it again, and see that nothing is lost.

Run as ``python benchmarks/resume.py``. One run on a poisoned set of drawn signs goes undisturbed. Then, ten times in a
new folder, a run is killed with SIGKILL at a moment drawn from the whole of the first run's time, start and writing
included, and the same command is given again; its ``verdicts.parquet`` must be the undisturbed one, byte for byte.
Results are kept in ``benchmarks/results/resume.json``. Exits with 1 if a verdict differs or half a file is left.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, head

from foretaste import io
from foretaste.attacks import BadNets, poison_training_set
from foretaste.io import atomic_json
from foretaste.io.signs import draw_signs
from foretaste.report.results import FILES

RESULT = RESULTS / "resume.json"
POISON_FOUND = 1


def main() -> int:
    """Kill and resume; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the poison and the moments")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--base-steps", type=int, default=60)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    settings = [f"base_steps={options.base_steps}", f"view_steps={options.steps}"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        poisoned = poison_training_set(draw_signs(options.images), BadNets(rate=0.03), options.seed)
        io.write_parquet(poisoned.samples, work / "train.parquet")

        def command(out: Path) -> list[str]:
            chosen = [word for setting in settings for word in ("--set", setting)]
            arguments = ["cleanse", str(work / "train.parquet"), "--json", *chosen, "--out", str(out)]
            return [sys.executable, "-m", "foretaste", *arguments]

        began = time.perf_counter()
        finish(command(work / "whole"))
        whole_seconds = time.perf_counter() - began
        expected = (work / "whole" / "verdicts.parquet").read_bytes()

        # One moment in each tenth of the run, so that the whole of it is covered.
        drawn = np.random.default_rng(options.seed).random(options.kills)
        moments = (np.arange(options.kills) + drawn) / options.kills * whole_seconds
        kills = [
            kill_and_resume(command(work / f"killed-{n}"), work / f"killed-{n}", moment, expected)
            for n, moment in enumerate(moments)
        ]
    passed = all(kill["identical"] and not kill["unfinished_files"] for kill in kills)
    result = {
        **head(),
        "seed": options.seed,
        "n_images": options.images,
        "n_poison": int(poisoned.poison.sum()),
        "settings": settings,
        "whole_seconds": round(whole_seconds, 2),
        "kills": kills,
        "n_identical": sum(kill["identical"] for kill in kills),
        "passed": passed,
    }
    atomic_json(RESULT, result)
    print(f"{result['n_identical']} of {len(kills)} verdicts identical; {RESULT}")
    return 0 if passed else 1


def kill_and_resume(command: list[str], out: Path, moment: float, expected: bytes) -> dict[str, Any]:
    """Kill a run ``moment`` seconds after its start, run it again to its end, and compare the verdicts."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(moment)
        killed = False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        killed = True
    phase = phase_reached(out)
    began = time.perf_counter()
    finish(command)
    left = sorted({path.name for path in out.iterdir()} - set(FILES))
    kill = {
        "killed_after_seconds": round(moment, 2),
        "killed": killed,
        "phase": phase,
        "resumed_seconds": round(time.perf_counter() - began, 2),
        "identical": (out / "verdicts.parquet").read_bytes() == expected,
        "unfinished_files": left,
    }
    print(kill, flush=True)
    return kill


def phase_reached(out: Path) -> str:
    """Say how far a killed run had come, by what it left."""
    if (out / "summary.json").exists():
        return "everything written"
    if (out / "verdicts.parquet").exists():
        return "writing results"
    finished = sorted((out / ".work").glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    if finished:
        return f"after {finished[-1].stem}"
    return "before the first checkpoint" if (out / ".work").exists() else "starting and reading"


def finish(command: list[str]) -> None:
    """Run a command to its end.

    Raises:
        SystemExit: it failed, or found no poison.
    """
    run = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode != POISON_FOUND:
        raise SystemExit(f"exit code {run.returncode}: {run.stderr}")


if __name__ == "__main__":
    sys.exit(main())
