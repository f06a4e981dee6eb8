"""How the problems of a task are written: what a bias, maps and a certificate are of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from lengthwise.arguments import as_whole, refuse
from lengthwise.errors import InputError, unknown
from lengthwise.own_code import names_code
from lengthwise.problems.layout import Alignment, InputOrder, Layout
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size
from lengthwise.tasks import ALL_TASKS, WORKSHEETS, add_frame, find_task, make_task
from lengthwise.tasks.given import settings_of

Frame = Literal["none", "tokens"]


class OfFormat:
    """What is of problems that are written in one format."""

    format: Format

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.format.name


@dataclass(frozen=True)
class Format:
    """A task with its parameters and base, and how its problems lie in the source.

    Attributes:
        name: of the task, a key of `ALL_TASKS`.
        base: of its numbers; by default the task's own.
        parameters: what defines the task besides; those that are left out are its defaults.
        alignment, input_order: as in `Layout`.
        frame: `tokens` for a start and an end token around the source.

    Raises:
        ValueError: for a task that is none, and for words and types that are not of these.
    """

    name: str
    base: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    alignment: Alignment = "natural"
    input_order: InputOrder = "normal"
    frame: Frame = "none"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(
                f"name is that of a task, got {self.name!r}; Format.of_task takes classes"
            )
        if find_task(self.name) is None:
            if names_code(self.name) or Path(self.name).suffix:
                raise ValueError(
                    f"a Format is of a task's name, which is also written to files; of the file "
                    f"{self.name!r} take lw.Format.of_task({self.name!r})"
                )
            raise ValueError(
                f"{unknown('task', self.name, ALL_TASKS)}; one of your own is known by its file "
                f"(--task FILE)"
            )
        task = ALL_TASKS[self.name]
        words = {"alignment": Alignment, "input_order": InputOrder, "frame": Frame}
        for key, kind in words.items():
            if getattr(self, key) not in get_args(kind):
                raise ValueError(f"{key} is one of {get_args(kind)}, not {getattr(self, key)!r}")
        if type(self.base) is not int:
            raise ValueError(f"base must be a whole number, got {self.base!r}")
        if not isinstance(self.parameters, Mapping):
            raise ValueError(f"parameters is a dictionary, got {self.parameters!r}")
        for key, value in self.parameters.items():
            if key in task.parameters and type(value) is not type(task.parameters[key]):
                raise ValueError(f"{key} of {self.name} can't be {value!r}")
        written = self.alignment, self.input_order, self.frame
        if self.is_sheet and written != ("natural", "normal", "none"):
            raise ValueError(
                f"sheets of {self.name} are written in one way: no alignment, order or frame"
            )
        # As they are, however they were given: equal formats are equal.
        vars(self).update(
            base=self.base or task.bases[0], parameters={**task.parameters, **self.parameters}
        )

    @classmethod
    def of(cls, given: Format | str) -> Format:
        """A format, or that of a task by its name with all else as by default."""
        return cls(given) if isinstance(given, str) else given

    @classmethod
    def of_task(cls, given: Any, **written: Any) -> Format:
        """The format of a task by its name, its class or an instance, or its file, which is run.

        Args:
            given: as `lw.train` takes it, such as `my_task.py`.
            written: how its problems are written: `base`, `alignment`, `input_order`, `frame`.

        Raises:
            InputError: for what is no task, a file that is none or fails, and what is not written so.
        """
        found = settings_of(given)
        if found is None and (not isinstance(given, str) or Path(given).suffix):
            refuse("task", "its name, such as 'addition', its class or its file", given)
        known = [each.name for each in fields(cls)[1:]]
        for other in written.keys() - set(known):
            raise InputError(f"{unknown('argument', other, known)}; parameters={{'operands': 4}}")
        name = given if found is None else found.pop("task")
        try:
            made = cls(name, **{**(found or {}), **written})
            _ = made.task  # tries the base and the parameters, too
        except ValueError as error:
            raise InputError(error) from error
        return made

    @cached_property
    def task(self) -> Any:
        """The task itself, a `Transducer` or a `Worksheet`, its source framed where it is.

        Raises:
            ValueError: for a base or a parameter that it does not allow.
        """
        task = make_task(self.name, self.base, **self.parameters)
        return add_frame(task) if self.frame == "tokens" else task

    @property
    def is_sheet(self) -> bool:
        """Whether problems are written as sheets of many rows."""
        return self.name in WORKSHEETS

    def at(self, width: int | Size) -> Any:
        """The layout of problems whose operands are padded to so many digits; of sheets, of that size.

        Raises:
            InputError: for what is no whole number from 1 up, and of a sheet no `Size` either.
        """
        if self.is_sheet and isinstance(width, Size):
            return SheetLayout(self.task, width)
        width = as_whole("width", width, 1)
        if self.is_sheet:
            return SheetLayout(self.task, Size(width, width))
        return Layout(self.task, width, self.alignment, self.input_order)

    def to_dict(self) -> dict[str, Any]:
        """The format as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, values: Mapping[str, Any] | str) -> Format:
        """The format that `to_dict` gave; or of a task by its name, as earlier formats had it.

        Raises:
            ValueError: for other values.
        """
        try:
            found = cls.of(values) if isinstance(values, str) else cls(**values)
            _ = found.task  # tries the base and the parameters, too
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{json.dumps(values)[:80]} describes no problems") from error
        return found
