"""What a run was made with: versions, machine, and which state of the package's own files."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch


def versions() -> dict[str, Any]:
    """What ran: versions, machine and, where git tracks the package's own files, which repository, at
    what commit, and whether those files were changed."""
    tracked = _git("ls-files", "--error-unmatch", "version.py") is not None
    top = _git("rev-parse", "--show-toplevel") if tracked else None
    changed = _git("status", "--porcelain", "--untracked-files=no", ".") if tracked else None
    return {
        "lengthwise": version("lengthwise"),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_repository": None if top is None else Path(top).name,
        "git_commit": _git("rev-parse", "HEAD") if tracked else None,
        "git_changed": None if changed is None else bool(changed),
    }


def _git(*arguments: str) -> str | None:
    """What git says in the package's folder; None where it fails."""
    command = ["git", "-C", str(Path(__file__).parents[1]), *arguments]
    # A hook of git's runs with variables that name the repository it is for.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()
    return None
