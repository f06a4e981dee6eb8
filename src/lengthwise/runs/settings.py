"""Settings that a file holds, such as a run's: what it is to blame for, and the methods that it names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lengthwise.bias import BIASES
from lengthwise.files import sha256
from lengthwise.model import POSITIONS
from lengthwise.runs.folder import CONFIG, METHOD_CODE, consists_of, written_by
from lengthwise.settings.config import Config, InputError, make_config
from lengthwise.settings.files import load_config
from lengthwise.settings.own_methods import know, own_source
from lengthwise.version import __version__


def read_config(path: Path, assignments: Iterable[str] = ()) -> Config:
    """The settings of a file, such as a run's config.json, changed by assignments.

    Raises:
        InputError: when they can't be used; where the file is to blame it is named, with the version of
            lengthwise that wrote it, if that is known and another.
    """
    return config_of_file(path, load_config(path), assignments)


def config_of_file(
    path: Path | None, values: dict[str, Any], assignments: Iterable[str] = ()
) -> Config:
    """As `read_config`, from the values that the file holds; without one as `make_config`."""
    if path is None:
        return make_config(values, assignments)
    _ask_for_methods(path, values)
    try:
        return make_config(values, assignments)
    except InputError as error:
        try:
            make_config(values)
        except InputError as alone:
            if str(alone) == str(error):
                writer = written_by(path.parent)
                other = writer is not None and writer != __version__
                note = f"; lengthwise {writer} wrote it, this is {__version__}" if other else ""
                raise InputError(f"{path}: {error}{note}") from error
        raise


def check_method(path: Path, config: Config) -> None:
    """Refuse a method's file that is not the one that a run was trained with (`InputError`)."""
    code = own_source(config.model.positions, config.model.bias, of_files=True)
    wanted = (consists_of(path / CONFIG) or {}).get(METHOD_CODE)
    if code is not None and wanted is not None and sha256(code.encode()) != wanted:
        raise InputError(
            f"{path} was trained with a method whose file has changed since; take the one it was trained "
            f"with (--method {path / METHOD_CODE} is a copy), or train again"
        )


def _ask_for_methods(path: Path, values: dict[str, Any]) -> None:
    """Say which file to name, where settings name a method of a user's own that is not known here.

    Raises:
        InputError: for such a method.
    """
    model = values.get("model")
    for key, known in (("positions", POSITIONS), ("bias", BIASES)):
        name = model.get(key) if isinstance(model, dict) else None
        if not isinstance(name, str) or name in known or know(name):
            continue
        if (path.parent / METHOD_CODE).exists():
            raise InputError(
                f"{path.parent} was trained with {name}, a method of somebody's own, whose code is never "
                f"run by itself; name its file with --method my_method.py, or in Python with "
                f"Run.open(..., method=CLASS) ({path.parent / METHOD_CODE} is a copy: read it first)"
            )
