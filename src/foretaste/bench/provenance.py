"""Which code measured something, and on which machine."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import foretaste

CHANGED = "+changes"
"""Stands behind a commit whose files were changed since."""


@cache
def commit() -> str:
    """Return the commit of the code that runs, or its version if it is not run from a Git checkout."""
    package = Path(foretaste.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a virtual environment may lie in somebody else's checkout
        return git("rev-parse", "--short=12", "HEAD") + (CHANGED if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return f"foretaste {foretaste.__version__}"


def machine() -> str:
    """Say what the figures were measured on."""
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}{gpu}"
