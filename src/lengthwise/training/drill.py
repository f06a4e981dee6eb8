"""Problems that a training must get right besides those it draws: `data.drill`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lengthwise.files import from_json
from lengthwise.locality.sheets import WRITES
from lengthwise.problems.layout import Layout, digits_of
from lengthwise.problems.sheets import Seen, SheetLayout
from lengthwise.problems.sizes import Size, size_of
from lengthwise.settings.config import Config, InputError
from lengthwise.tasks import Worksheet
from lengthwise.tasks.near import CLOSED


def drill_sheets(config: Config, layout: SheetLayout) -> dict[Size, np.ndarray]:
    """The drill of some settings of sheets, by size: digits `[problem, operand, place]`.

    Numbers have zeros on the left up to the training size; a list has a size of its own.

    Raises:
        InputError: as `drill_problems`.
    """
    task, size = layout.task, layout.size
    found: dict[Size, list[np.ndarray]] = {}
    for expression in config.data.drilled_problems:
        try:
            parts = task.parse(expression)
        except InputError as error:
            raise InputError(f"data.drill: {error}") from error
        if any(len(p) > size.of(task, s.name) for p, s in zip(parts, task.operands, strict=True)):
            raise InputError(f"data.drill: {expression} is larger than {size}")
        own = size_of(task, parts)
        if not task.from_left:
            own = size
        elif task.endless or all(task.axis(name).by_column for name in task.axes):
            own = Size(own.columns, size.rows)
        found.setdefault(own, []).append(digits_of(task, parts, own.longest))
    return {own: np.concatenate(problems) for own, problems in found.items()}


def drill_sights(config: Config, task: Worksheet) -> tuple[Seen, Tensor] | None:
    """What queries see, in the drill of some settings, and the tokens that they must write; None for none.

    Raises:
        InputError: for what is no record of a sight (`lengthwise.locality.sheets.Sights.record`).
    """
    texts = config.data.drilled_sights
    if not texts:
        return None
    try:
        rows = [from_json(text) for text in texts]
        tracks = [track for track in rows[0] if track != WRITES]
        seen = [
            [CLOSED if row[track] is None else task.token(row[track]) for row in rows]
            for track in tracks
        ]
        wanted = [task.token(row[WRITES]) for row in rows]
        return Seen(task, tracks, np.array(seen, np.uint8)), torch.tensor(wanted)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"data.drill: {texts[0]} is no record of what a query sees") from error


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
