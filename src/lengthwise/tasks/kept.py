"""What a run keeps of a task that is not the package's: its source, to be read, and its rule as a table.

`task.json` says what is known of the task without its code. Opening a run never runs `task.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lengthwise.errors import InputError, shorten
from lengthwise.files import from_json, read_text, sha256, write_text
from lengthwise.own_code import source_of
from lengthwise.tasks.dataset import Dataset, dataset_class
from lengthwise.tasks.own import rule_digest
from lengthwise.tasks.table import as_table, table_class
from lengthwise.tasks.transducer import Transducer

TASK, SOURCE = "task.json", "task.py"


def keep(folder: Path, task: Any) -> None:
    """Write `task.json` into a run folder, and `task.py` where the source is known."""
    kind = type(task)
    values: dict[str, Any] = {"name": task.name, "class": kind.__name__, "rule": rule_digest(task)}
    source = source_of(kind)
    if source is not None and not isinstance(task, Dataset):
        values["source"] = sha256(source.encode())
        write_text(folder / SOURCE, source)
    if isinstance(task, Dataset):
        values["problems"] = task.values
    elif isinstance(task, Transducer):
        table = as_table(task)
        if table is not None:
            chosen = {
                name: getattr(task, name, default) for name, default in task.parameters.items()
            }
            values |= {"table": table, "parameters": chosen}
    write_text(folder / TASK, json.dumps(values, indent=1) + "\n")


def read_kept(folder: Path) -> dict[str, Any]:
    """What a run folder's `task.json` says; nothing where there is none.

    Raises:
        InputError: for a broken file.
    """
    path = folder / TASK
    if not path.is_file():
        return {}
    try:
        values = from_json(read_text(path))
        if not isinstance(values, dict) or not isinstance(values.get("name"), str):
            raise ValueError(f"it describes no task: {shorten(str(values))}")
        return values
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is broken: {error}") from error


def reopened(folder: Path, name: str) -> type | None:
    """The task that a run was trained on, from what its folder keeps; None where it keeps nothing of it.

    Raises:
        InputError: where the task is its code, with what to do.
    """
    values = read_kept(folder)
    if values.get("name") != name:
        return None
    try:
        if "table" in values:
            made = table_class(values["table"])
            made.parameters = dict(values.get("parameters", {}))
            return made
        if "problems" in values:
            return dataset_class(values["problems"])
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / TASK} is broken: {error}") from error
    copy = f" ({folder / SOURCE} is a copy: read it first)" if "source" in values else ""
    raise InputError(
        f"{folder} was trained on {name}, a task of its author's own, which is code; name its file with "
        f"--task FILE.py, or the class with Run.open(..., task=CLASS){copy}"
    )


def check_kept(folder: Path, task: Any) -> None:
    """Refuse a task in place of the one that a run was trained on, if its rule differs (`InputError`)."""
    values = read_kept(folder)
    if values and values.get("rule") != rule_digest(task):
        raise InputError(
            f"{folder} was trained on another rule than that of {task.name} now; take the one it was "
            f"trained with ({SOURCE} there is a copy, where it is code), or train again"
        )
