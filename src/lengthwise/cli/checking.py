"""The command that checks a task before anyone trains a model on it."""

from __future__ import annotations

import typer

from lengthwise.cli import options
from lengthwise.cli.commands import app, show


@app.command("check-task")
def check_task_command(
    task: options.TaskOrFile,
    set_: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Check a task: its rule, its answers, its problems, its contexts; a line for each, with what to mend.

    Exit code 0: a model can be trained on it, and proven. 1: something is to be mended first.

    Example: lengthwise check-task my_task.py
    """
    from lengthwise.api.task_settings import settings
    from lengthwise.task_checks import check_task

    checks = check_task(settings(task, set_ or ()))
    show(as_json, [check.to_dict() for check in checks], "\n".join(map(str, checks)))
    raise typer.Exit(0 if all(check.good for check in checks) else 1)
