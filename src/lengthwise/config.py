"""Settings: frozen, typed, unknown keys refused; from TOML files and `--set KEY=VALUE`."""

from __future__ import annotations

import copy
import difflib
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lengthwise.bias import BIASES
from lengthwise.model.positions import POSITIONS
from lengthwise.tasks import TASKS, Transducer, add_frame

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class InputError(ValueError):
    """What a person gave can't be used; the message says what was given and what is allowed."""


class Settings(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_booleans(cls, values: Any) -> Any:
        """No setting is one; Python would take them for 1 and 0."""
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool):
                raise ValueError(f"{key} can't be {str(value).lower()}")
        return values


class DataSettings(Settings):
    """Which problems the model trains on.

    Attributes:
        length: digits of the longest operand, at most.
        width: digits that operands are padded to; by default just enough for every answer.
        frame: `tokens` puts a start and an end token around the source, as the paper's code does.
        carry_fraction: share of problems with a carry chain laid over them.
        drill: problems that the model must get right besides, an eighth of every batch: those that a proof
            found it to get wrong.
    """

    length: Count = 6
    width: Count | None = None
    frame: Literal["none", "tokens"] = "none"
    carry_fraction: Share = 0.3
    drill: tuple[str, ...] = ()


class ModelSettings(Settings):
    """The transformer.

    Attributes:
        width, heads, layers, feed_forward, dropout: its size; `layers` are those of the decoder.
        positions: a name in `lengthwise.model.POSITIONS`.
        period: T of `cyclic` positions.
        max_positions: tokens of the longest sequence that `learned` positions reach; longer problems count
            as wrong in an evaluation.
        bias: a name in `lengthwise.bias.BIASES`; a calibrated bias takes its place.
        window, window_sides: of the bias `window`.
        alibi_cross: of `alibi`: nothing at cross-attention, or the distance.
        t5_buckets, t5_distance: of `t5`: buckets, and the distance from which on all share one.
        shaw_distance: of `shaw`: where distances are clipped.
        encoder_layers: 0 is the identity encoder of the paper's code.
        norm: before each part of a layer, or after.
        embedding_scale: whether token embeddings are multiplied by the square root of the width.
    """

    width: Count = 64
    heads: Count = 4
    layers: Count = 2
    feed_forward: Count = 256
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    positions: str = "sinusoidal"
    period: Count = 3
    max_positions: Count = 512
    bias: str = "causal"
    window: Annotated[int, Field(ge=0)] = 1
    window_sides: Literal["both", "left", "right"] = "both"
    alibi_cross: Literal["none", "distance"] = "none"
    t5_buckets: Annotated[int, Field(ge=4)] = 32
    t5_distance: Count = 128
    shaw_distance: Count = 16
    encoder_layers: Annotated[int, Field(ge=0)] = 0
    norm: Literal["pre", "post"] = "pre"
    embedding_scale: Literal["none", "sqrt"] = "none"

    @field_validator("positions", "bias")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        kind, known = (
            ("bias", BIASES) if info.field_name == "bias" else ("position scheme", POSITIONS)
        )
        if value not in known:
            raise ValueError(unknown(kind, value, known))
        return value

    @model_validator(mode="after")
    def _divides(self) -> ModelSettings:
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"width must be even and a multiple of heads, got {self.width} and {self.heads}"
            )
        if self.positions == "rope" and self.width // self.heads % 2:
            raise ValueError(
                f"rope turns pairs of channels: width / heads must be even, got {self.width} / {self.heads}"
            )
        if self.t5_buckets % 2 or self.t5_distance <= self.t5_buckets // 2:
            raise ValueError(
                f"t5_buckets must be even and less than twice t5_distance, got {self.t5_buckets} and "
                f"{self.t5_distance}"
            )
        return self


class TrainingSettings(Settings):
    """How the model is trained, and when that is over.

    Training ends when a model interpolates: every `evaluate_every` steps it answers
    `validation_problems` problems that it never trains on; once it gets the share `exact_match` of them
    right with a mean loss of at most `loss`, the learning rate falls linearly to 0 over
    `cooldown_steps`, and the model is done if it then still meets both, with no single symbol's loss
    above `worst_loss`. Otherwise training goes on, up to `max_steps`.

    With `until = "max_steps"` it ends there, whatever the model answers, and the rate does not fall.
    Every `keep_checkpoints_every` steps (0: never) the model so far is kept as a run folder of its own,
    `checkpoints/step-N`. Training starts from the weights of the run `initial`, if one is named, and leaves
    what is `frozen` as it is.
    """

    batch_size: Count = 128
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    cooldown_steps: Annotated[int, Field(ge=0)] = 0
    max_steps: Count = 20_000
    evaluate_every: Count = 100
    validation_problems: Count = 1024
    exact_match: Share = 0.999
    loss: Annotated[float, Field(gt=0.0)] = 2e-3
    worst_loss: Annotated[float, Field(gt=0.0)] = 10.0
    checkpoint_every: Count = 500
    until: Literal["interpolates", "max_steps"] = "interpolates"
    keep_checkpoints_every: Annotated[int, Field(ge=0)] = 0
    initial: str | None = None
    frozen: Literal["nothing", "embeddings"] = "nothing"


class RetrainingSettings(Settings):
    """How the second training, with the calibrated bias, differs from the first."""

    positions: str = "none"
    cooldown_steps: Annotated[int, Field(ge=0)] = 300
    max_steps: Count = 6_000
    exact_match: Share = 1.0
    loss: Annotated[float, Field(gt=0.0)] = 1e-3
    worst_loss: Annotated[float, Field(gt=0.0)] = 0.05


class CalibrationSettings(Settings):
    """How attention maps become a bias: see `lengthwise.calibration`."""

    policy: Literal["auto", "paper"] = "auto"
    problems: Count = 512
    kappa_cross: Annotated[float, Field(ge=0.0)] = 4.5
    kappa_self: Annotated[float, Field(ge=0.0)] = 0.87
    attempts: Count = 3


class EvaluationSettings(Settings):
    """Which lengths are evaluated, on how many problems of each, and how far operands are padded.

    `padding` is `answer`: by no more than the answer needs; or `training`: at least to the training width,
    as the paper's code does. It is that of `solve`, too.
    """

    lengths: Annotated[tuple[Count, ...], Field(min_length=1)] = (6, 10, 20, 60, 200, 1000)
    samples: Count = 1000
    long_samples: Count = 200
    padding: Literal["answer", "training"] = "answer"
    suites: Annotated[tuple[Literal["uniform", "carry"], ...], Field(min_length=1)] = (
        "uniform",
        "carry",
    )

    def samples_at(self, length: int) -> int:
        """Problems of one length: `samples` up to 100 digits, `long_samples` beyond."""
        return self.samples if length <= 100 else min(self.samples, self.long_samples)


class Config(Settings):
    """Everything that fixes a run."""

    task: str = "successor"
    base: Annotated[int, Field(ge=2, le=36)] = 10
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: Literal["auto", "dense", "lines"] = "auto"
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    retraining: RetrainingSettings = RetrainingSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @field_validator("task")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in TASKS:
            raise ValueError(unknown("task", value, TASKS))
        return value

    @model_validator(mode="after")
    def _fits(self) -> Config:
        bases = TASKS[self.task].bases
        if self.base not in bases:
            raise ValueError(f"base of {self.task} must be {bases[0]}, got {self.base}")
        least = self.data.length + TASKS[self.task].growth
        if self.data.width is not None and self.data.width < least:
            raise ValueError(
                f"data.width must be at least {least} for answers of {self.task} at length "
                f"{self.data.length}, got {self.data.width}"
            )
        return self

    def make_task(self) -> Transducer:
        """The task itself."""
        task = TASKS[self.task](self.base)
        return add_frame(task) if self.data.frame == "tokens" else task

    @property
    def width(self) -> int:
        """Digits that operands are padded to in training."""
        return self.data.width or self.data.length + TASKS[self.task].growth

    def for_retraining(self) -> Config:
        """The settings of the second training; the calibrated bias takes the place of the first's."""
        changes = self.retraining.model_dump()
        model = {"positions": changes.pop("positions"), "bias": Config().model.bias}
        return self.model_copy(
            update={
                "model": self.model.model_copy(update=model),
                "training": self.training.model_copy(update=changes),
            }
        )


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """`unknown task 'adition'; did you mean 'addition'? known: ...`"""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {given!r}{hint} known: {', '.join(names)}"


def make_config(values: dict[str, Any], assignments: Iterable[str] = ()) -> Config:
    """Settings from nested values, changed by assignments such as `training.learning_rate=1e-3`.

    Base and training length, where they are not given, are the task's own.

    Raises:
        InputError: with one clear line for the first thing that is wrong.
    """
    if not isinstance(values, dict):
        raise InputError(f"settings are a table of keys and values, got {values!r}")
    merged = copy.deepcopy(values)
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise InputError(f"--set takes KEY=VALUE, got {assignment!r}")
        *parents, last = key.strip().split(".")
        place = merged
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {assignment}: {parent!r} holds a value, not settings")
        place[last] = _value(text.strip())
    name = merged.get("task", Config().task)
    task = TASKS.get(name) if isinstance(name, str) else None
    if task is not None:
        merged.setdefault("base", task.bases[0])
        data = merged.setdefault("data", {})
        if isinstance(data, dict):
            data.setdefault("length", task.length)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise InputError(_explain(error)) from error


def _value(text: str) -> Any:
    """A value as TOML reads it; anything else is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        model: Any = Config
        for part in path[:-1]:
            model = model.model_fields[part].annotation
        where = f" in [{'.'.join(path[:-1])}]" if path[:-1] else ""
        return unknown(f"setting{where}", path[-1], model.model_fields)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return (
            message if not path or message.startswith("unknown") else f"{'.'.join(path)}: {message}"
        )
    return f"{'.'.join(path)}: {message[0].lower()}{message[1:]}, got {first['input']!r}"


def load_config(path: Path) -> dict[str, Any]:
    """The nested values of a TOML file (ours) or of a run's config.json.

    Raises:
        InputError: when the file can't be read or parsed.
    """
    try:
        text = path.read_text("utf-8")
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not a settings file: {error}") from error
