"""The file that a training goes on from: whole or not at all, and refused where its format is another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lengthwise.files import reason, write_with
from lengthwise.runs.folder import CHECKPOINT, written_by
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError
from lengthwise.version import __version__

FORMAT = "lengthwise-checkpoint/1"


def save_checkpoint(run: Run, state: dict[str, Any]) -> None:
    """Write everything that the next step of a run's training depends on.

    Raises:
        OSError: where the run's folder has gone.
    """
    if not run.path.is_dir():  # a new one would hold a checkpoint and no run
        raise OSError(
            f"{run.path} is no longer there; where it was moved to, --resume goes on with it"
        )
    state = {"format": FORMAT, "lengthwise": __version__, **state}
    write_with(run.path / CHECKPOINT, lambda temporary: torch.save(state, temporary))


@contextlib.contextmanager
def taking_up(run: Run) -> Iterator[dict[str, Any]]:
    """The state of a run's checkpoint, to be put into its training.

    Raises:
        InputError: when it can't be read, or what it holds can't be put there.
    """
    path, state = run.path / CHECKPOINT, None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # Else of a version before there were formats; most of these are read.
        if "format" in state:
            _check_format(path, state)
        yield state
    except InputError:
        raise
    except Exception as error:  # a broken file raises many kinds
        if state is None and not isinstance(error, OSError):  # torch speaks of its own options then
            raise InputError(
                f"{path} is not a checkpoint of this run: it is broken, or no file that torch wrote; "
                f"another --out begins anew"
            ) from error
        if isinstance(state, dict) and "format" not in state and "step" in state:
            _check_format(path, state)
        raise InputError(f"{path} is not a checkpoint of this run: {reason(error)}") from error


def _check_format(path: Path, state: dict[str, Any]) -> None:
    """A checkpoint serves only the format that wrote it; finished weights serve all."""
    found = state.get("format", "none")
    if found != FORMAT:
        writer = state.get("lengthwise") or written_by(path.parent) or "of an unknown version"
        raise InputError(
            f"{path} is a checkpoint of lengthwise {writer}, format {found}; this is {__version__}, "
            f"which reads {FORMAT}. Continue with that version, or train again with --force"
        )
