"""The parts of the settings: typed, frozen, unknown keys refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from lengthwise.bias import BIASES, Sides
from lengthwise.errors import unknown
from lengthwise.model.positions import POSITIONS
from lengthwise.problems.layout import Alignment, InputOrder
from lengthwise.problems.sampling import Distribution
from lengthwise.problems.sizes import Size

Count = Annotated[int, Field(ge=1)]
# Each is walked over when a run is opened, whoever wrote its settings.
_MOST_LAYERS = 1000
# By no more than the answer needs; at least to the training width.
Padding = Literal["answer", "training"]
# Sheets of more than 100 x 100 cells that are asked.
_LARGE_SHEETS = 8
Widths = Literal["fixed", "varied", "rows"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _one_of(kind: str, known: Iterable[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise ValueError(unknown(kind, value, known))
        return value

    return AfterValidator(check)


Positions = Annotated[str, _one_of("position scheme", POSITIONS)]


def _size(text: str) -> str:
    return str(Size.parse(text))


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
        length: digits of the longest operand, at most; where it is not given the task's own, and in small
            bases as many as tell 10,000 numbers apart.
        columns, rows: of sheets, digits of the operands along columns and along rows; by default `length`.
        width: digits that operands are padded to; by default just enough for every answer.
        alignment: how the operands lie in the source: `natural` one after the other, `interleaved` column
            by column behind the symbol (paper, input alignment).
        input_order: `normal`, operands most significant digit first, or `reversed`.
        frame: `tokens` puts a start and an end token around the source, as the paper's code does.
        widths: `fixed` pads every batch to `width`; `varied` pads each to a width of its own, uniform from
            what its longest problem needs up to `width`; `rows`, of sheets, varies digits along rows alone.
        distribution: `lengths` draws lengths first, so that short problems are common; `paper` draws every
            operand uniformly below 2^20. Then `length` is that of 2^20 - 1, and no carry chains are laid.
        carry_fraction: share of problems with a carry chain laid over them, of sheets of those in
            which large digits are common; 0.3, with `paper` 0.
        drill: problems that the model must get right besides, an eighth of every batch: those that a proof
            found it to get wrong. Of sheets also what single queries see, as JSON, where no
            problem is known to show it.
    """

    length: Count = 6
    columns: Count | None = None
    rows: Count | None = None
    width: Count | None = None
    alignment: Alignment = "natural"
    input_order: InputOrder = "normal"
    widths: Widths = "fixed"
    distribution: Distribution = "lengths"
    frame: Literal["none", "tokens"] = "none"
    carry_fraction: Share = 0.3
    drill: tuple[str, ...] = ()

    @property
    def drilled_sights(self) -> tuple[str, ...]:
        """What single queries see, of the drill: JSON, which no expression is."""
        return tuple(text for text in self.drill if text.startswith("{"))

    @property
    def drilled_problems(self) -> tuple[str, ...]:
        """The problems of the drill."""
        sights = self.drilled_sights
        return tuple(text for text in self.drill if text not in sights)


class ModelSettings(Settings):
    """The transformer.

    Attributes:
        kind: `encoder-decoder` reads the problem through cross-attention; `decoder` reads problem and
            answer as one sequence, in one attention (`lengthwise.model.joint`).
        width, heads, layers, feed_forward, dropout: its size; `layers` are those of the decoder.
        positions: a name in `lengthwise.model.POSITIONS`; what it has of settings is in `positions`.
        period: T of `cyclic` positions.
        max_positions: tokens of the longest sequence that `learned` positions reach; longer problems count
            as wrong in an evaluation.
        bias: a name in `lengthwise.bias.BIASES`; a calibrated bias takes its place. What it has of
            settings, where none of these, is in `bias`.
        window, window_sides: of the bias `window`.
        alibi_cross: of `alibi`: nothing at cross-attention, or the distance.
        t5_buckets, t5_distance: of `t5`: buckets, and the distance from which on all share one.
        shaw_distance: of `shaw`: where distances are clipped.
        encoder_layers: 0 is the identity encoder of the paper's code.
        norm: before each part of a layer, or after.
        embedding_scale: whether token embeddings are multiplied by the square root of the width.
    """

    kind: Literal["encoder-decoder", "decoder"] = "encoder-decoder"
    width: Count = 64
    heads: Count = 4
    layers: Annotated[int, Field(ge=1, le=_MOST_LAYERS)] = 2
    feed_forward: Count = 256
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    positions: Positions = "sinusoidal"
    period: Count = 3
    max_positions: Count = 512
    bias: Annotated[str, _one_of("bias", BIASES)] = "causal"
    window: Annotated[int, Field(ge=0)] = 1
    window_sides: Sides = "both"
    alibi_cross: Literal["none", "distance"] = "none"
    t5_buckets: Annotated[int, Field(ge=4)] = 32
    t5_distance: Count = 128
    shaw_distance: Count = 16
    encoder_layers: Annotated[int, Field(ge=0, le=_MOST_LAYERS)] = 0
    norm: Literal["pre", "post"] = "pre"
    embedding_scale: Literal["none", "sqrt"] = "none"

    @model_validator(mode="after")
    def _divides(self) -> ModelSettings:
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"width must be even and a multiple of heads, got {self.width} and {self.heads}"
            )
        self.check_positions(self.positions)
        if self.joint:
            self._check_decoder()
        if self.t5_buckets % 2 or self.t5_distance <= self.t5_buckets // 2:
            raise ValueError(
                f"t5_buckets must be even and less than twice t5_distance, got {self.t5_buckets} and "
                f"{self.t5_distance}"
            )
        return self

    @property
    def joint(self) -> bool:
        """Whether problem and answer are read in one attention."""
        return self.kind == "decoder"

    def _check_decoder(self) -> None:
        if self.encoder_layers:
            raise ValueError("a decoder has no encoder: model.encoder_layers must be 0")
        if getattr(BIASES[self.bias](self), "learned", None) is not None:
            raise ValueError(
                f"bias {self.bias!r} learns numbers for problem and answer apart, but a decoder reads both "
                f"in one attention; model.kind must be encoder-decoder"
            )

    def identity(self) -> dict[str, Any]:
        """What tells a model from others, as hashes and files of weights hold it.

        A kind is left out where it is the default: before there was a second, none was named.
        """
        return self.model_dump(exclude={"kind"} if self.kind == "encoder-decoder" else None)

    def check_positions(self, positions: str) -> None:
        """Refuse a position scheme that does not fit the size, in this training or the second.

        Raises:
            ValueError: for it.
        """
        if positions == "rope" and self.width // self.heads % 2:
            raise ValueError(
                f"rope turns pairs of channels: width / heads must be even, got {self.width} / {self.heads}"
            )
        scheme = POSITIONS[positions]
        if self.joint and (scheme.period is not None or scheme.kind == "ids"):
            raise ValueError(
                f"position scheme {positions!r} numbers problem and answer apart, but a decoder reads both "
                f"as one sequence; model.kind must be encoder-decoder"
            )


class TrainingSettings(Settings):
    """How the model is trained, and when that is over.

    Training ends when a model interpolates: every `evaluate_every` steps it answers
    `validation_problems` problems that it never trains on; once it gets the share `exact_match` of them
    right with a mean loss of at most `loss`, the learning rate falls linearly to 0 over
    `cooldown_steps`, and the model is done if it then still meets both, with no single symbol's loss
    above `worst_loss`. Otherwise training goes on, up to `max_steps`, and from the third on each
    cooldown takes twice as long as the one before, up to eight times as long as the first; from the
    fifth on each begins at half of the rate of the one before.

    With `until = "max_steps"` it ends there, whatever the model answers, and the rate does not fall.
    Every `keep_checkpoints_every` steps (0: never) the model so far is kept as a run folder of its own,
    `checkpoints/step-N`; of these the last `keep_checkpoints` stay (0: all), and the best of those that
    were measured. Training starts from the weights of the run `initial`, if one is named, and leaves
    what is `frozen` as it is.

    `precision = "bfloat16"` multiplies matrices of a training step in that type (weights, optimizer and
    validation stay float32); with `execution = "compiled"` its passes are compiled, on a GPU into CUDA
    graphs. Both are for GPUs.

    A batch of `batch_size` problems goes through the model in `accumulate` parts, one after the other: the
    same step up to rounding, in less memory.
    """

    batch_size: Count = 128
    accumulate: Count = 1
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
    keep_checkpoints: Annotated[int, Field(ge=0)] = 0
    initial: str | None = None
    frozen: Literal["nothing", "embeddings"] = "nothing"
    precision: Literal["float32", "bfloat16"] = "float32"
    execution: Literal["eager", "compiled"] = "eager"


class RetrainingSettings(Settings):
    """How the second training, with the calibrated bias, differs from the first.

    Attributes:
        columns, rows, widths, carry_fraction: as in `data`, where they are set.
        dropout: as in `model`, where it is set.
    """

    columns: Count | None = None
    rows: Count | None = None
    widths: Widths | None = None
    carry_fraction: Share | None = None
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    positions: Positions = "none"
    cooldown_steps: Annotated[int, Field(ge=0)] = 300
    max_steps: Count = 6_000
    exact_match: Share = 1.0
    loss: Annotated[float, Field(gt=0.0)] = 1e-3
    worst_loss: Annotated[float, Field(gt=0.0)] = 0.05


class CalibrationSettings(Settings):
    """How attention maps become a bias: see `lengthwise.calibration`."""

    policy: Literal["auto", "paper"] = "auto"
    lines: Literal["fewest", "all"] = "fewest"
    problems: Count = 512
    kappa_cross: Annotated[float, Field(ge=0.0)] = 4.5
    kappa_self: Annotated[float, Field(ge=0.0)] = 0.87
    attempts: Count = 3


class EvaluationSettings(Settings):
    """Which lengths are evaluated, on how many problems of each, and how far operands are padded.

    Attributes:
        lengths: digits.
        sizes: of sheets, such as `20x15`: digits along columns, and along rows.
        samples: problems of each length up to 100 digits, and at most this many of any.
        long_samples: of longer ones.
        longer_samples, longest_samples: from 10,000 digits on, and from 100,000 on.
        padding: `answer`: by no more than the answer needs; `training`: at least to the training width,
            as the paper's code does; `auto`: a calibrated model as the answer needs, another, which learned
            one width, at that width and beside it as the answer needs. `solve` takes the first of these.
        suites: `uniform` and `carry` (`lengthwise.problems.sampling.suite_problems`), of sheets `uniform`
            and `hard` (`lengthwise.problems.sheet_sampling.suite_sheets`).
    """

    lengths: Annotated[tuple[Count, ...], Field(min_length=1)] = (6, 10, 20, 60, 200, 1000)
    sizes: tuple[Annotated[str, AfterValidator(_size)], ...] = ()
    samples: Count = 1000
    long_samples: Count = 200
    longer_samples: Count = 20
    longest_samples: Count = 4
    padding: Literal["auto", "answer", "training"] = "auto"
    suites: Annotated[tuple[Literal["uniform", "carry", "hard"], ...], Field(min_length=1)] = (
        "uniform",
        "carry",
    )

    @field_validator("lengths", "sizes", "suites", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        """One of them will do, and as text several, as the command's options take them: `6,60`."""
        if isinstance(given, str):
            return [part.strip() for part in given.split(",")]
        return [given] if isinstance(given, int) else given

    def samples_of(self, size: Size) -> int:
        """How many sheets of one size; of large ones fewer, as their cells are many."""
        if size.cells <= 400:
            return self.samples
        return min(self.samples, self.long_samples if size.cells <= 10_000 else _LARGE_SHEETS)

    def samples_at(self, length: int) -> int:
        """How many problems of one length."""
        if length <= 100:
            return self.samples
        chosen = self.long_samples if length < 10_000 else self.longer_samples
        return min(self.samples, chosen if length < 100_000 else self.longest_samples)
