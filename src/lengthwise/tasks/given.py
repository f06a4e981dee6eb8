"""What a person may give for a task besides its name: a class, or a file of code, a table or problems."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lengthwise.errors import InputError
from lengthwise.files import MOST_SETTINGS, from_toml, read_text
from lengthwise.own_code import load_class, names_code
from lengthwise.tasks import KINDS, TuringMachine, register
from lengthwise.tasks.dataset import dataset_class, dataset_values
from lengthwise.tasks.own import check_rule, rule_digest
from lengthwise.tasks.table import table_class

PROBLEMS = (".jsonl",)


def settings_of(given: Any) -> dict[str, Any] | None:
    """The settings that name a task; it is known from then on.

    Args:
        given: a class or an instance of a user's own; or a file: of code, `my_task.py` or
            `my_task.py:Class`, which is run; of a table or a Turing machine (.toml); of problems and
            answers (.jsonl).

    Returns:
        `{"task": name}`, of an instance with its base and parameters; None for anything else, such as a
        task's name or a file of settings.

    Raises:
        InputError: in one sentence, for what is meant to be a task and is none.
    """
    if isinstance(given, type):
        return _checked(register(given))
    if isinstance(given, KINDS):
        return _of_instance(given)
    text = str(given)
    if names_code(text):
        return _checked(register(load_class(text, KINDS, "task")))
    path = Path(text)
    if path.suffix in PROBLEMS:
        name = re.sub(r"\W+", "_", path.stem).lower()
        return _checked(register(dataset_class(dataset_values(path, name))))
    if path.suffix == ".toml":
        return _of_toml(path)
    return None


def _checked(kind: type, *arguments: Any, **parameters: Any) -> dict[str, Any]:
    check_rule(kind(*arguments, **parameters))
    return {"task": kind.name}  # type: ignore[attr-defined]


def _of_instance(task: Any) -> dict[str, Any]:
    kind = type(task)
    register(kind)
    for name in kind.parameters:
        if not hasattr(task, name):
            raise InputError(f"{kind.__name__} does not keep its parameter {name} as self.{name}")
    chosen = {name: getattr(task, name) for name in kind.parameters}
    found = _checked(kind, task.base, **chosen)
    if rule_digest(task) != rule_digest(kind(task.base, **chosen)):
        raise InputError(
            f"this {kind.__name__} has another rule than one of its base and parameters "
            f"({', '.join(map(str, chosen)) or 'none'}); name in `parameters` what else defines it"
        )
    return {**found, "base": task.base, "parameters": chosen}


def _of_toml(path: Path) -> dict[str, Any] | None:
    try:
        text = read_text(path, MOST_SETTINGS)
        values = from_toml(text)
    except (OSError, ValueError):
        return None  # what is said of settings files
    if "transitions" not in values or "task" in values:
        return None
    if "symbols" in values:  # of a tape
        return {"task": TuringMachine.name, "parameters": {"machine": text}}
    try:
        return _checked(register(table_class(values, re.sub(r"\W+", "_", path.stem).lower())))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
