"""Settings: frozen, typed, unknown keys refused."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from lengthwise.errors import InputError, unknown
from lengthwise.methods import Bias, Positions
from lengthwise.problems.format import Format
from lengthwise.problems.sampling import PAPER_LIMIT
from lengthwise.problems.sizes import Size
from lengthwise.settings.method_tables import (
    BIAS_TABLE,
    POSITION_TABLE,
    TABLES,
    bias_of,
    fill_table,
    make_method,
    positions_of,
)
from lengthwise.settings.parameters import (
    TABLE,
    Chosen,
    fill,
    gather,
    gather_assignments,
    key_and_value,
    parameter_names,
)
from lengthwise.settings.sections import (
    CalibrationSettings,
    DataSettings,
    EvaluationSettings,
    ModelSettings,
    RetrainingSettings,
    Settings,
    TrainingSettings,
)
from lengthwise.tasks import ALIASES, ALL_TASKS, WORKSHEETS, find_task
from lengthwise.tasks.transducer import digits_needed

# The parts of the first training's settings that hold what the second has of its own, where not `training`.
_PARTS = {"positions": "model", "dropout": "model"} | dict.fromkeys(
    ("columns", "rows", "widths", "carry_fraction"), "data"
)

# Settings of the first training that the second has of its own, with their names there.
RETRAINED = {
    f"{_PARTS.get(name, 'training')}.{name}": f"retraining.{name}"
    for name in RetrainingSettings.model_fields
}


class Config(Settings):
    """Everything that fixes a run.

    Attributes:
        task: a name in `lengthwise.tasks.ALL_TASKS`.
        base: of its numbers.
        parameters: what defines the task besides its base, each with its value, as `{"operands": 3}` of
            `multi_addition`; those that are not given are as the task's `parameters` say.
        seed: of weights and problems.
        device: where the model runs.
        attention, decode: how attention and greedy decoding are computed, never what;
            `lines` and `parallel` need a bias that consists of lines.
        positions, bias: what the scheme `model.positions`, and the bias `model.bias`, have of settings of
            their own, as `{"max_position": 132}` of `coupling`; files hold them where there are some.
    """

    task: str = "successor"
    base: Annotated[int, Field(ge=2, le=36)] = 10
    parameters: dict[str, int | str] = Field(default_factory=dict, validate_default=True)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: Literal["auto", "dense", "lines"] = "auto"
    decode: Literal["auto", "parallel", "sequential"] = "auto"
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    retraining: RetrainingSettings = RetrainingSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    positions: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    bias: dict[str, Any] = Field(default_factory=dict, validate_default=True)

    @field_validator("task")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in ALIASES:
            raise ValueError(f"task {value!r} is called {ALIASES[value]}")
        if find_task(value) is None:
            raise ValueError(unknown("task", value, ALL_TASKS))
        return value

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, values: Any) -> Any:
        return gather(values, cls.model_fields) if isinstance(values, dict) else values

    @field_validator("parameters", mode="plain")
    @classmethod
    def _filled(cls, value: Any, info: ValidationInfo) -> Chosen:
        # Of an unknown task, which is refused, nothing is known.
        return fill(info.data["task"], value) if "task" in info.data else Chosen()

    @field_validator(POSITION_TABLE, BIAS_TABLE, mode="plain")
    @classmethod
    def _of_methods(cls, value: Any, info: ValidationInfo) -> Chosen:
        model = info.data.get("model")
        if model is None:  # which is refused
            return Chosen()
        if info.field_name == POSITION_TABLE:
            return fill_table(POSITION_TABLE, model.positions, positions_of(model.positions), value)
        return fill_table(BIAS_TABLE, model.bias, bias_of(model.bias), value)

    @model_serializer(mode="wrap")
    def _with_tables(
        self, dump: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        values = dump(self)
        for table in {TABLE, *TABLES} & values.keys():
            if info.exclude_unset:
                chosen = getattr(self, table)
                values[table] = {key: chosen[key] for key in chosen if key in chosen.given}
            if table != TABLE and not values[table]:
                del values[table]
        return values

    @property
    def position_method(self) -> Positions | None:
        """The position scheme, where it is a method's class."""
        kind = positions_of(self.model.positions)
        return None if kind is None else make_method(kind, self.positions, POSITION_TABLE)

    @property
    def bias_method(self) -> Bias | None:
        """The bias, where it is a method's class."""
        kind = bias_of(self.model.bias)
        return None if kind is None else make_method(kind, self.bias, BIAS_TABLE)

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def _fits(self) -> Config:
        bases = ALL_TASKS[self.task].bases
        if self.base not in bases:
            raise ValueError(f"base of {self.task} must be {bases[0]}, got {self.base}")
        self.model.check_positions(self.retraining.positions)
        if positions_of(self.retraining.positions) is not None:
            raise ValueError(
                f"retraining.positions can't be {self.retraining.positions!r}: lines lead to tokens "
                f"wherever they lie, and need no ids"
            )
        self._check_sheet()
        if self.data.distribution == "paper":
            longest = digits_needed(PAPER_LIMIT - 1, self.base)
            if self.data.length != longest:
                raise ValueError(
                    f"data.length must be {longest} with the paper's distribution: operands below 2^20 "
                    f"have up to {longest} digits in base {self.base}, got {self.data.length}"
                )
            if self.data.carry_fraction:
                raise ValueError(
                    f"data.carry_fraction must be 0 with the paper's distribution, whose operands are "
                    f"uniform, got {self.data.carry_fraction}"
                )
        least = self.data.length + self.make_task().growth
        if self.data.width is not None and self.data.width < least:
            raise ValueError(
                f"data.width must be at least {least} for answers of {self.task} at length "
                f"{self.data.length}, got {self.data.width}"
            )
        return self

    def _check_sheet(self) -> None:
        """Refuse settings of sheets for other tasks, and those of other tasks for sheets."""
        data, evaluation = self.data, self.evaluation
        if not self.format.is_sheet:
            idle = {
                "data.columns": data.columns,
                "data.rows": data.rows,
                "retraining.columns": self.retraining.columns,
                "retraining.rows": self.retraining.rows,
                "evaluation.sizes": evaluation.sizes,
                "data.widths=rows": data.widths == "rows",
                "retraining.widths=rows": self.retraining.widths == "rows",
            }
            for name, value in idle.items():
                if value:
                    raise ValueError(f"{name} is of sheets; problems of {self.task} have one row")
            if "hard" in evaluation.suites:
                raise ValueError(f"suites of {self.task} are uniform and carry, not hard")
            return
        if "carry" in evaluation.suites:
            raise ValueError(f"suites of {self.task} are uniform and hard, not carry")
        if data.distribution == "paper" or data.width is not None:
            raise ValueError(
                f"sheets of {self.task} have data.columns and data.rows, no data.width, and digits of "
                f"their own, no data.distribution"
            )

    @property
    def format(self) -> Format:
        """How the problems are written."""
        data = self.data
        laid = (data.alignment, data.input_order, data.frame)
        return Format(self.task, self.base, self.parameters, *laid)

    def make_task(self) -> Any:
        """The task itself, a `Transducer` or a `Worksheet`."""
        return self.format.task

    @property
    def is_sheet(self) -> bool:
        """Whether problems are sheets of many rows. It is asked of every problem: no Format is made."""
        return self.task in WORKSHEETS

    @property
    def size(self) -> Size:
        """Of sheets: digits along columns and along rows in training."""
        return Size(self.data.columns or self.data.length, self.data.rows or self.data.length)

    @property
    def longest(self) -> int:
        """Digits of the longest operands in training."""
        return self.size.longest if self.is_sheet else self.data.length

    @property
    def asked(self) -> list[Any]:
        """What is evaluated: lengths, of sheets sizes."""
        lengths = self.evaluation.lengths
        if not self.is_sheet:
            return list(lengths)
        return [Size.parse(text) for text in self.evaluation.sizes or map(str, lengths)]

    @property
    def width(self) -> int:
        """Digits that operands are padded to in training."""
        return self.data.width or self.data.length + self.make_task().growth

    @property
    def covered_length(self) -> int:
        """The most digits such that training sees all numbers of that many.

        The paper's numbers end amid those of 7 decimal digits: there it is 6, else `data.length`.
        """
        if self.data.distribution == "paper":
            return digits_needed(PAPER_LIMIT, self.base) - 1
        return self.data.length

    def layout(self, width: int | Size | None = None) -> Any:
        """The layout of a model with these settings: everyone who runs it takes it from here.

        Args:
            width: digits that operands are padded to, by default as in training; of sheets a size.

        Returns:
            A `Layout`, or of a worksheet a `SheetLayout`.
        """
        if self.is_sheet and width is None:
            width = self.size
        return self.format.at(self.width if width is None else width)

    def for_retraining(self) -> Config:
        """The settings of the second training; the calibrated bias takes the place of the first's."""
        given = self.retraining.model_dump(exclude_none=True)
        changes: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "training": {}}
        for name, value in given.items():
            changes[_PARTS.get(name, "training")][name] = value
        changes["model"]["bias"] = Config().model.bias
        parts = {part: getattr(self, part).model_copy(update=own) for part, own in changes.items()}
        # What was not set of the second training is not set now, whatever was of the first.
        for name in given.keys() - self.retraining.model_fields_set:
            parts[_PARTS.get(name, "training")].model_fields_set.discard(name)
        parts["model"].model_fields_set.discard("bias")
        return self.model_copy(update={**parts, POSITION_TABLE: Chosen(), BIAS_TABLE: Chosen()})


def make_config(values: dict[str, Any], assignments: Iterable[str] = ()) -> Config:
    """Settings from nested values, changed by assignments such as `training.learning_rate=1e-3`.

    Base, parameters, training length and the task's `settings`, where not given, are its own. Parameters
    may be given by their name alone, `operands=4` for `parameters.operands=4`; a text may be given in an
    assignment as the path of a file that holds it.

    Raises:
        InputError: with one clear line for the first thing that is wrong.
    """
    if not isinstance(values, dict):
        raise InputError(f"settings are a table of keys and values, got {values!r}")
    merged = gather(copy.deepcopy(values), Config.model_fields)
    given = map(key_and_value, assignments)
    for key, value in gather_assignments(given, Config.model_fields):
        *parents, last = key.split(".")
        place = merged
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {key}: {parent!r} holds a value, not settings")
        place[last] = value
    name = merged.get("task", Config().task)
    task = find_task(name) if isinstance(name, str) else None
    filled: list[tuple[str, str]] = []  # what is not set, but follows from the task
    if task is not None:
        if merged.get("base") is None:
            merged["base"] = task.bases[0]
            filled.append(("", "base"))
        base, data = merged["base"], merged.get("data")
        own = task.defaults(base if isinstance(base, int) else task.bases[0])
        if isinstance(data, dict) and data.get("distribution") == "paper" and isinstance(base, int):
            length = digits_needed(PAPER_LIMIT - 1, max(2, base))
            own["data"] |= {"length": length, "carry_fraction": 0.0}
        for part, defaults in own.items():
            given = merged.setdefault(part, {})
            if isinstance(given, dict):
                filled += [(part, key) for key in defaults if key not in given]
                merged[part] = {**defaults, **given}
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise InputError(_explain(error)) from error
    except UnicodeEncodeError as error:  # of bytes that are no text, as of an argument
        raise InputError(f"a setting has {error.object!r} in it, which is no text") from error
    for part, key in filled:
        (getattr(config, part) if part else config).model_fields_set.discard(key)
    return config


def overlaid(before: Config, after: Config) -> Config:
    """Settings, changed by those of others that were set there: `model_fields_set` tells which."""
    values = before.model_dump(mode="json")
    if after.task != before.task:
        del values[TABLE]
    for table in TABLES:
        is_set = table in after.model.model_fields_set
        if is_set and getattr(after.model, table) != getattr(before.model, table):
            values.pop(table, None)
    _overlay(values, after.model_dump(mode="json", exclude_unset=True))
    return make_config(values)


def _overlay(values: dict[str, Any], others: dict[str, Any]) -> None:
    for key, value in others.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _overlay(values[key], value)
        else:
            values[key] = value


def flat_settings(config: Config, *, given: bool = False) -> dict[str, Any]:
    """The settings by their dotted names, as `--set` takes them; all, or those alone that were given."""
    values = config.model_dump(mode="json", exclude_unset=given)
    return {
        f"{part}.{key}" if key else part: value
        for part, held in values.items()
        for key, value in (held.items() if isinstance(held, dict) else [("", held)])
    }


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        model: Any = Config
        for part in path[:-1]:
            model = model.model_fields[part].annotation
        where = f" in [{'.'.join(path[:-1])}]" if path[:-1] else ""
        known = {*model.model_fields, *(() if where else parameter_names())}
        return unknown(f"setting{where}", path[-1], known)
    message = first["msg"].removeprefix("Value error, ")
    # What is said of these names them itself.
    whole = ("task", TABLE, *TABLES)
    if first["type"] == "value_error":
        return (
            message
            if not path or path in ([one] for one in whole) or message.startswith("unknown")
            else f"{'.'.join(path)}: {message}"
        )
    return f"{'.'.join(path)}: {message[0].lower()}{message[1:]}, got {first['input']!r}"
