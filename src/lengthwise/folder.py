"""The run folder's files: what they are called, who may write them, what they were made with."""

from __future__ import annotations

import contextlib
import fcntl
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from lengthwise.bias import SITES, CalibratedBias
from lengthwise.config import InputError
from lengthwise.files import write_with
from lengthwise.layout import Layout

CONFIG, VERSIONS, METRICS = "config.json", "versions.json", "metrics.jsonl"
WEIGHTS, BIAS, CHECKPOINT, MAPS = (
    "model.safetensors",
    "bias.jsonl",
    "checkpoint.pt",
    "maps.safetensors",
)
MATRICES_FILE = "bias.safetensors"
LOCK = ".lock"
CALIBRATED, VANILLA, MATRICES = "calibrated", "vanilla", "matrices"

# Bytes of dense matrices that are written; more are of no use to anyone who can compute them.
DENSE_LIMIT = 4 << 30


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write safetensors; the file appears whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_with(path, lambda temporary: save_file(contiguous, temporary))


def save_dense(path: Path, bias: CalibratedBias, layout: Layout, layers: int) -> None:
    """Write a bias as matrices `[head, query, key]`, safetensors named `cross.0`, `self.0`, ...

    Raises:
        InputError: when they would take more than `DENSE_LIMIT` bytes.
    """
    rows = range(layout.target_length)
    size = 4 * layers * bias.heads * len(rows) * sum(layout.keys(site) for site in SITES)
    if size > DENSE_LIMIT:
        raise InputError(
            f"dense matrices for {layout.width} columns take {size / 2**30:.1f} GiB; the limit is "
            f"{DENSE_LIMIT >> 30} GiB. The bias itself is right at every length"
        )
    save_tensors(
        path,
        {
            f"{site}.{layer}": bias.dense(site, layer, layout, rows)
            for site in SITES
            for layer in range(layers)
        },
    )


def versions() -> dict[str, Any]:
    """What ran: versions, machine and, inside a git checkout, the commit, and whether files changed."""
    return {
        "lengthwise": version("lengthwise"),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changed": bool(_git("status", "--porcelain", "--untracked-files=no", ".")),
    }


def _git(*arguments: str) -> str | None:
    """What git says about the package's own checkout, if it lies in one."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a folder for writing.

    Raises:
        InputError: when another process holds it.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another process is writing {path}") from error
        yield


def prepare(path: Path, *, resume: bool, force: bool, pipeline: bool = False) -> None:
    """Make sure that a folder may be written: never over an existing run without being told.

    Call it with the folder locked. `force` removes what is there. `pipeline` says that the folder is to
    hold the runs of a pipeline, rather than one run.

    Raises:
        InputError: when the folder holds something and neither flag is given, or what it holds is
            no run.
    """
    content = [entry for entry in path.iterdir() if entry.name != LOCK]
    names = {entry.name for entry in content if entry.suffix != ".part"}
    if not names:
        return
    # Other programs' folders hold a config.json too, so that alone does not make one ours to remove.
    run = {CONFIG, VERSIONS} <= names or names <= {BIAS, MATRICES_FILE, VERSIONS}
    has_pipeline = (path / VANILLA / LOCK).exists()
    if not run and not has_pipeline:
        raise InputError(f"{path} exists and is not a run; choose another folder with --out")
    if resume and pipeline != has_pipeline:
        writer = "abc" if has_pipeline else "train"
        raise InputError(f"{path} was written by `lengthwise {writer}`, which continues it")
    if resume:
        return
    if not force:
        raise InputError(f"{path} exists; --resume continues it, --force starts over")
    for entry in content:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
