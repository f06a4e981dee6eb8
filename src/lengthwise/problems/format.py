"""How the problems of a task are written: what a bias, maps and a certificate are of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from lengthwise.errors import unknown
from lengthwise.problems.layout import Alignment, InputOrder, Layout
from lengthwise.tasks import TASKS, Transducer, add_frame, make_task

Frame = Literal["none", "tokens"]


@dataclass(frozen=True)
class Format:
    """A task with its parameters and base, and how its problems lie in the source.

    Attributes:
        name: of the task, a key of `TASKS`.
        base: of its numbers; by default the task's own.
        parameters: what defines the task besides; those that are left out are its defaults.
        alignment, input_order: as in `Layout`.
        frame: `tokens` for a start and an end token around the source.

    Raises:
        ValueError: for a task that is none.
    """

    name: str
    base: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    alignment: Alignment = "natural"
    input_order: InputOrder = "normal"
    frame: Frame = "none"

    def __post_init__(self) -> None:
        if self.name not in TASKS:
            raise ValueError(unknown("task", self.name, TASKS))
        task = TASKS[self.name]
        # As they are, however they were given: equal formats are equal.
        vars(self).update(
            base=self.base or task.bases[0], parameters={**task.parameters, **self.parameters}
        )

    @classmethod
    def of(cls, given: Format | str) -> Format:
        """A format, or that of a task by its name with all else as by default."""
        return cls(given) if isinstance(given, str) else given

    @cached_property
    def task(self) -> Transducer:
        """The task itself, its source framed where it is.

        Raises:
            ValueError: for a base or a parameter that it does not allow.
        """
        task = make_task(self.name, self.base, **self.parameters)
        return add_frame(task) if self.frame == "tokens" else task

    def at(self, width: int) -> Layout:
        """The layout of problems whose operands are padded to so many digits."""
        return Layout(self.task, width, self.alignment, self.input_order)

    def to_dict(self) -> dict[str, Any]:
        """The format as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, values: Mapping[str, Any] | str) -> Format:
        """The format that `to_dict` gave; or of a task by its name, as version 0.1 wrote.

        Raises:
            ValueError: for other values.
        """
        try:
            found = cls.of(values) if isinstance(values, str) else cls(**values)
            assert found.task.operands  # tries the base and the parameters, too
        except TypeError as error:
            raise ValueError(f"{json.dumps(values)[:80]} describes no problems") from error
        return found
