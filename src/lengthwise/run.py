"""A run is a folder: settings, versions, metrics, weights, bias, results. Files appear atomically."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from lengthwise.bias import BIASES, SITES, AttentionBias, CalibratedBias, MatrixBias
from lengthwise.config import Config, InputError, load_config, make_config
from lengthwise.files import read_text, reason, write_text
from lengthwise.folder import (
    BIAS,
    CALIBRATED,
    CONFIG,
    MATRICES,
    MATRICES_FILE,
    METRICS,
    VANILLA,
    VERSIONS,
    WEIGHTS,
    save_tensors,
    versions,
    written_by,
)
from lengthwise.layout import END, Layout, Vocabulary, digits_of
from lengthwise.methods import method_of
from lengthwise.model import Transformer
from lengthwise.solving import check_ways, decode_problems, follows_lines
from lengthwise.tasks import Transducer
from lengthwise.version import __version__

# The longest operand that is taken: a few bytes a digit through windows; with a cache of all keys and
# values one answer of 200,000 digits needs about a gigabyte.
LONGEST, LONGEST_CACHED = 10_000_000, 200_000


def make_model(config: Config) -> Transformer:
    """The untrained model of some settings; torch's random generator decides its weights."""
    task = config.make_task()
    tokens = len(Vocabulary(task.base, task.symbols))
    # A calibrated bias takes the place of the settings' one (`Config.for_retraining` sees to that).
    learned = getattr(make_bias(config), "learned", None)
    of_the_bias = {"bias", "window", "window_sides", "alibi_cross"}
    of_the_bias |= {"t5_buckets", "t5_distance", "shaw_distance"}
    return Transformer(tokens, **config.model.model_dump(exclude=of_the_bias), learned=learned)


def make_bias(config: Config) -> AttentionBias:
    """The bias that some settings name."""
    return BIASES[config.model.bias](config.model)


def check_reach(model: Transformer, layout: Layout) -> None:
    """Refuse problems that are longer than learned positions reach.

    Raises:
        InputError: for those.
    """
    lengths = layout.source_length, layout.target_length
    if not model.reaches(*lengths):
        raise InputError(
            f"problems padded to {layout.width} digits have {max(lengths)} tokens; learned positions of "
            "this model end earlier (model.max_positions)"
        )


def make_device(name: str, attention: str = "auto") -> torch.device:
    """`auto` is a GPU where there is one.

    Raises:
        InputError: when `cuda` is asked for and there is none, or `flex` attention without it.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' was asked for, but torch sees no GPU; use 'cpu' or 'auto'")
    use_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    if attention == "flex" and not use_gpu:
        raise InputError("attention 'flex' needs a GPU; use 'auto', 'dense' or 'lines'")
    return torch.device("cuda" if use_gpu else "cpu")


@dataclass(frozen=True)
class Answer:
    """What a model made of an expression.

    Attributes:
        text: the answer as a person writes it; for parity, the bit.
        work: what the model wrote, symbol by symbol, least significant digit first; for parity the
            scratchpad of running exclusive ors.
    """

    text: str
    work: str


class Run:
    """A run folder, opened.

    Attributes:
        path: the folder.
        config: its settings.
        bias: the bias it was trained with.
    """

    def __init__(self, path: Path, config: Config, bias: AttentionBias) -> None:
        self.path, self.config, self.bias = path, config, bias

    @classmethod
    def open(cls, path: Path | str, *, device: str | None = None, set: Iterable[str] = ()) -> Run:
        """Open a run; of a folder made by `abc`, the calibrated one.

        Args:
            path: the folder.
            device: `auto`, `cpu` or `cuda`; by default where it was trained.
            set: assignments that change settings for this use of it, such as `"calibration.problems=64"`.

        Raises:
            InputError: when the folder is no run, or holds a broken file.
        """
        path = Path(path)
        if (path / CALIBRATED / CONFIG).exists():
            path = path / CALIBRATED
        if not (path / CONFIG).exists():
            what = "has no config.json" if path.is_dir() else "does not exist"
            if path.is_file():
                what = "is a file, not a folder"
            if (path / VANILLA / CONFIG).exists():
                what = f"is unfinished; `lengthwise abc ... --out {path} --resume` continues it"
            raise InputError(f"{path} is not a run: it {what}")
        changes = [] if device is None else [f"device={device}"]
        config = read_config(path / CONFIG, [*changes, *set])
        bias = make_bias(config)
        if (path / BIAS).exists():
            bias = load_bias(path / BIAS)
            check_bias(bias, config)
        elif (path / MATRICES_FILE).exists():
            try:
                bias = MatrixBias.load(path / MATRICES_FILE)
            except ValueError as error:
                raise InputError(str(error)) from error
            check_bias(bias, config)
        check_ways(bias, config)
        return cls(path, config, bias)

    @classmethod
    def create(cls, path: Path, config: Config, bias: CalibratedBias | MatrixBias | None) -> Run:
        """Make the folder and write what is known before training."""
        if bias is not None:
            check_bias(bias, config)
        check_ways(bias or make_bias(config), config)
        if bias is not None:
            bias.save(path / (BIAS if isinstance(bias, CalibratedBias) else MATRICES_FILE))
        write_text(path / VERSIONS, json.dumps(versions(), indent=2) + "\n")
        write_text(path / CONFIG, config.model_dump_json(indent=2) + "\n")
        return cls(path, config, bias or make_bias(config))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.config.task}, seed {self.config.seed})"

    @cached_property
    def task(self) -> Transducer:
        return self.config.make_task()

    @cached_property
    def device(self) -> torch.device:
        return make_device(self.config.device, self.config.attention)

    @cached_property
    def longest(self) -> int:
        """The most digits that an operand may have."""
        return LONGEST if follows_lines(self.config, self.bias) else LONGEST_CACHED

    @cached_property
    def model(self) -> Transformer:
        """The trained model, in evaluation mode.

        Raises:
            InputError: when training has not finished, or the weights are broken or do not fit.
        """
        path = self.path / WEIGHTS
        if not path.exists():
            raise InputError(
                f"{self.path} holds no trained model yet; finish it with "
                f"`lengthwise train {self.path / CONFIG} --out {self.path} --resume`"
            )
        # Whoever asks first may be inside inference mode; the weights must not be bound to it.
        with torch.inference_mode(False):
            model = make_model(self.config)
            self.load_weights(model, path)
            return model.to(self.device).eval()

    @staticmethod
    def load_weights(model: Transformer, path: Path) -> None:
        """Give a model the weights of a file.

        Raises:
            InputError: when it does not hold weights of such a model.
        """
        try:
            weights = load_file(path)
        except Exception as error:  # safetensors raises many kinds
            raise InputError(f"{path} does not hold this run's weights: {reason(error)}") from error
        wanted = model.state_dict()
        for name in dict.fromkeys([*wanted, *weights]):
            shapes = [
                "none" if name not in tensors else str(list(tensors[name].shape))
                for tensors in (weights, wanted)
            ]
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"{path} does not hold this run's weights: of {name} it has {shapes[0]}, the model of "
                    f"{path.with_name(CONFIG)} {shapes[1]}"
                )
        model.load_state_dict(weights)

    @property
    def method(self) -> str:
        """`calibrated` with a calibrated bias, `matrices` with one of matrices, else the method that the
        settings are, or `custom`."""
        if isinstance(self.bias, MatrixBias):
            return MATRICES
        return CALIBRATED if isinstance(self.bias, CalibratedBias) else method_of(self.config)

    def save_model(self, model: Transformer) -> None:
        """Write the weights."""
        save_tensors(self.path / WEIGHTS, model.state_dict())
        self.__dict__.pop("model", None)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: step, loss, exact_match, learning_rate, seconds, ...

        A last row that a crash cut off is left out.

        Raises:
            InputError: when another row is broken.
        """
        path = self.path / METRICS
        try:
            text = read_text(path) if path.exists() else ""
            return [json.loads(row) for row in text.splitlines(keepends=True) if row.endswith("\n")]
        except ValueError as error:
            raise InputError(f"{path} holds a broken row: {error}") from error

    def layout(self, length: int) -> Layout:
        """The layout for problems of this length: padded by no more than the answer needs.

        Where `evaluation.padding` says `training`, and with fixed matrices, at least to the training width.

        Raises:
            InputError: when the bias is of matrices that do not reach so far.
        """
        width = length + self.task.growth
        if self.config.evaluation.padding == "training" or isinstance(self.bias, MatrixBias):
            width = max(width, self.config.width)
        if isinstance(self.bias, MatrixBias) and width > self.bias.width:
            raise InputError(
                f"the bias of {self.path} is of fixed matrices for operands of at most "
                f"{self.bias.width - self.task.growth} digits, got {length}; `lengthwise convert` turns "
                f"them into lines, which are defined at every length"
            )
        return self.config.layout(width, self.task)

    def solve(self, expression: str) -> str:
        """Answer an expression such as `12+3`, as a person writes it: for parity, the bit.

        Greedy decoding at the width that this expression needs, whatever it was in training.

        Raises:
            InputError: when the expression is malformed or has more than `longest` digits.
        """
        return self.solve_many([expression])[0]

    def solve_many(
        self, expressions: list[str], on_progress: Callable[[int, int], object] | None = None
    ) -> list[str]:
        """As `solve`, for several expressions of any lengths, side by side.

        Args:
            expressions: the expressions.
            on_progress: called while it works, with the symbols written so far and their number.
        """
        return [answer.text for answer in self.answers(expressions, on_progress)]

    def answers(
        self, expressions: list[str], on_progress: Callable[[int, int], object] | None = None
    ) -> list[Answer]:
        """As `solve_many`, with what the model wrote."""
        problems = [self.parse(expression) for expression in expressions]
        lengths = [max(len(part) for part in parts) for parts in problems]
        by_length = {length: self.layout(length) for length in set(lengths)}
        layouts = [by_length[length] for length in lengths]
        answers = [Answer("", "")] * len(problems)
        for layout in by_length.values():
            check_reach(self.model, layout)

        def source(i: int) -> np.ndarray:
            width = layouts[i].width
            return layouts[i].source_bytes(digits_of(self.task, problems[i], width))[0]

        with torch.inference_mode():
            for i, tokens in decode_problems(
                self.model,
                self.bias,
                self.config,
                layouts,
                source,
                device=self.device,
                on_progress=on_progress or (lambda done, of: None),
            ):
                work = layouts[i].text(torch.from_numpy(tokens)).removesuffix(END)
                answers[i] = Answer(self._read(layouts[i], tokens), work)
        return answers

    def parse(self, expression: str) -> list[str]:
        """The operands of an expression, without zeros on the left.

        Raises:
            InputError: as `solve`.
        """
        try:
            parts = self.task.parse(expression)
        except ValueError as error:
            raise InputError(str(error)) from error
        # Zeros on the left carry no value, and a width of their own would only cost time.
        parts = [part.lstrip("0") or "0" for part in parts]
        longest = max(len(part) for part in parts)
        if longest > self.longest:
            raise InputError(f"an operand has {longest} digits; the limit is {self.longest}")
        return parts

    def _read(self, layout: Layout, tokens: np.ndarray) -> str:
        """The number that the model wrote; a malformed answer is shown as it is."""
        digits = tokens[:-1]
        if tokens[-1] != layout.vocabulary.end or (digits >= self.task.base).any():
            return layout.text(torch.from_numpy(tokens))
        return self.task.read(digits)


def read_config(path: Path, assignments: Iterable[str] = ()) -> Config:
    """The settings of a file, such as a run's config.json, changed by assignments.

    Raises:
        InputError: when they can't be used; where the file is to blame it is named, with the version of
            lengthwise that wrote it, if that is known and another.
    """
    values = load_config(path)
    try:
        return make_config(values, assignments)
    except InputError as error:
        try:
            make_config(values)
        except InputError as alone:
            if str(alone) == str(error):
                writer = written_by(path.parent)
                other = writer is not None and writer != __version__
                note = f"; lengthwise {writer} wrote it, this is {__version__}" if other else ""
                raise InputError(f"{path}: {error}{note}") from error
        raise


def load_bias(path: Path | str) -> CalibratedBias:
    """Read a bias file.

    Raises:
        InputError: when it is missing or broken.
    """
    try:
        return CalibratedBias.load(path)
    except OSError as error:
        raise InputError(f"can't read bias {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(str(error)) from error


def check_bias(bias: CalibratedBias | MatrixBias, config: Config) -> None:
    """Refuse a bias that does not fit the model.

    Raises:
        InputError: for another task, another number of heads, unknown layers or segments, or matrices that
            are smaller than the training width.
    """
    if bias.task != config.task:
        raise InputError(
            f"the bias was calibrated for {bias.task}, but the task is {config.task}; `lengthwise convert "
            f"BIAS --task {config.task} --out FILE` makes one for it, where the two are laid out alike"
        )
    if bias.heads != config.model.heads:
        raise InputError(f"the bias has {bias.heads} heads, but the model has {config.model.heads}")
    if isinstance(bias, MatrixBias):
        if bias.layers not in (None, config.model.layers):
            raise InputError(
                f"the bias has matrices for {bias.layers} layers, the model {config.model.layers}"
            )
        if config.width > bias.width:
            raise InputError(
                f"the bias is of matrices for operands padded to {bias.width} digits, but data.width is "
                f"{config.width}; `lengthwise convert` turns them into lines"
            )
        return
    for line in bias.lines:
        if line.layer is not None and not 0 <= line.layer < config.model.layers:
            raise InputError(
                f"the bias names layer {line.layer}, but the model has {config.model.layers}"
            )
    layout = config.layout()
    try:
        for layer in range(config.model.layers):
            for site in SITES:
                bias.at(site, layer, layout)
    except ValueError as error:
        raise InputError(str(error)) from error
