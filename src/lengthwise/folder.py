"""The run folder's files: what they are called, who may write them, what they were made with."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import lock_descriptor
from safetensors.torch import save_file
from torch import Tensor

from lengthwise.bias import SITES, CalibratedBias
from lengthwise.config import InputError
from lengthwise.files import read_text, write_with
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

# What the system says where a file system has no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}

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
    """What ran: versions, machine and, where git tracks the package's own files, which repository, at
    what commit, and whether those files were changed."""
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
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
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    # A hook of git's runs with variables that name the repository it is for.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()
    return None


def written_by(folder: Path) -> str | None:
    """The version of lengthwise that wrote a run, as versions.json says; None where it does not."""
    try:
        values = json.loads(read_text(folder / VERSIONS))
        return str(values["lengthwise"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a folder for writing. It is made; if nothing is written, it goes again.

    On a file system without locks, work goes on after a word on stderr.

    Raises:
        InputError: when another process holds it, or it can't be written.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / LOCK).open("a")
    except FileExistsError as error:
        raise InputError(f"{path} is a file, not a folder") from error
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror}") from error
    try:
        with file:
            _lock(file.fileno(), path)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    if missing and [entry.name for entry in path.iterdir()] == [LOCK]:
                        (path / LOCK).unlink()
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # it is not empty: something was written
                folder.rmdir()


def _lock(descriptor: int, path: Path) -> None:
    try:
        if not lock_descriptor(descriptor, blocking=False):
            raise InputError(f"another process is writing {path}")
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise InputError(f"can't lock {path}: {error.strerror}") from error
        _say_without_locks(str(error.strerror))


@functools.cache
def _say_without_locks(why: str) -> None:
    """Say it once: a pipeline locks several folders."""
    print(
        f"lengthwise: this file system has no locks ({why}); see to it that nothing else writes the run",
        file=sys.stderr,
    )


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
