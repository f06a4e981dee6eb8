"""Problems that a training must get right besides those it draws: `data.drill`."""

from __future__ import annotations

import numpy as np

from lengthwise.problems.layout import Layout, digits_of
from lengthwise.problems.sheets import SheetLayout
from lengthwise.settings.config import Config, InputError


def drill_sheets(config: Config, layout: SheetLayout) -> np.ndarray:
    """The drill of some settings of sheets as digits `[problem, operand, place]`.

    Raises:
        InputError: as `drill_problems`.
    """
    task, size = layout.task, layout.size
    problems = [np.zeros((0, len(task.operands), size.longest), np.uint8)]
    for expression in config.data.drill:
        try:
            parts = task.parse(expression)
        except InputError as error:
            raise InputError(f"data.drill: {error}") from error
        if any(len(p) > size.of(task, s.name) for p, s in zip(parts, task.operands, strict=True)):
            raise InputError(f"data.drill: {expression} is larger than {size}")
        problems.append(digits_of(task, parts, size.longest))
    return np.concatenate(problems)


def drill_problems(config: Config, layout: Layout) -> np.ndarray:
    """The drill of some settings as digits `[problem, operand, column]`.

    Raises:
        InputError: for an expression that is no problem of the task, or too long for the training width.
    """
    task, room = layout.task, layout.width - layout.task.growth
    problems = [np.zeros((0, len(task.operands), layout.width), np.uint8)]
    for expression in config.data.drill:
        try:
            parts = task.parse(expression)
        except InputError as error:
            raise InputError(f"data.drill: {error}") from error
        if max(map(len, parts)) > room:
            raise InputError(f"data.drill: {expression} has more than {room} digits")
        problems.append(digits_of(task, parts, layout.width))
    return np.concatenate(problems)
