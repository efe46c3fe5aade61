"""Which code measured something, and on which machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import foretaste

CHANGED = "+changes"
"""Stands behind a commit whose files were changed since, and before a hash of the changes."""


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
        head = git("rev-parse", "--short=12", "HEAD")
        if not git("status", "--porcelain", "--", "."):
            return head
        changes = hashlib.sha256(git("diff", "HEAD", "--", ".").encode())
        for name in git("ls-files", "--others", "--exclude-standard", "--", ".").splitlines():
            changes.update(name.encode() + (package / name).read_bytes())
        return f"{head}{CHANGED}-{changes.hexdigest()[:6]}"
    except (OSError, subprocess.CalledProcessError):
        return f"foretaste {foretaste.__version__}"


def code_of(method: type[Any]) -> str:
    """Return a hash of the module that a method of another package stands in; "" for one of foretaste's own.

    What that module imports is not looked at.
    """
    module = sys.modules.get(method.__module__)
    file = getattr(module, "__file__", None)
    if method.__module__.partition(".")[0] == foretaste.__name__ or file is None:
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]


def machine() -> str:
    """Say what the figures were measured on."""
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}{gpu}"
