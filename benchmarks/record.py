"""What every result file of the benchmarks says beside its figures."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def git(*arguments: str) -> str:
    """Return what a git command prints; "" if it fails."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()


def head() -> dict[str, Any]:
    """Say by which command, on what, where and when this was measured; of paths of this machine the last part alone."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(words[0]).name}", *words[1:]]),
        "commit": git("rev-parse", "--short", "HEAD"),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}{gpu}",
    }


def of_version(path: Path, version: str, kind: str) -> dict[str, Any]:
    """Return the results that a file keeps of this version; ``{"version": …, kind: {}}`` if it has none."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return results if results.get("version") == version else {"version": version, kind: {}}
