"""A run in another process of this machine: what to tell it, so that it opens the same one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import torch

from lengthwise.runs.run import Run
from lengthwise.runs.weights import bias_text
from lengthwise.settings.config import InputError, make_config


def to_values(run: Run) -> dict[str, Any]:
    """A run as JSON values."""
    return {
        "path": str(run.path.absolute()),
        "config": run.config.model_dump(mode="json"),
        "model": _digest(run),
    }


def from_values(values: dict[str, Any]) -> Run:
    """The run of `to_values`, opened here.

    Raises:
        InputError: when its folder can't be opened, or holds another model by now, or its code is not to be
            had from there.
    """
    try:
        kept = Run.open(values["path"])
        run = Run(kept.path, make_config(values["config"]), kept.bias)
        same = _digest(run) == values["model"]
    except InputError as error:
        raise InputError(f"a worker can't open the run: {error}") from error
    if not same:
        raise InputError(
            f"{run.path} holds another model than the one asked about; workers open what the folder holds, "
            f"so leave --workers (workers=) out"
        )
    return run


@contextlib.contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """For a while, this process computes with so many threads, such as one where others work beside it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _digest(run: Run) -> str:
    """Tells a model and its bias, as they are in memory, from all others."""
    digest = hashlib.sha256()
    for name, weight in run.model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    digest.update(bias_text(run.bias).encode())
    return digest.hexdigest()
