"""A run is a folder: settings, versions, metrics, weights, bias, results. Files appear atomically."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lengthwise.arguments import as_flag, as_path, as_text, as_texts
from lengthwise.bias import AttentionBias, CalibratedBias, MatrixBias
from lengthwise.decoding.ways import check_ways, follows_lines
from lengthwise.files import from_json, read_text, sha256, write_text
from lengthwise.model import Transformer
from lengthwise.problems.sizes import Size, size_of
from lengthwise.problems.worked import significant
from lengthwise.runs.answer import Answer
from lengthwise.runs.columns import answer_columns
from lengthwise.runs.folder import (
    BIAS,
    CALIBRATED,
    CONFIG,
    MAPS,
    MATRICES,
    MATRICES_FILE,
    METHOD_CODE,
    METRICS,
    VANILLA,
    VERSIONS,
    WEIGHTS,
    check_parts,
    is_pipeline,
    save_config,
)
from lengthwise.runs.parts import check_bias, check_new, fitted, make_bias, make_device, make_model
from lengthwise.runs.settings import check_method, read_config
from lengthwise.runs.sheets import answer_sheets
from lengthwise.runs.versions import versions
from lengthwise.runs.weights import (
    check_described,
    check_shapes,
    describe,
    load_weights,
    save_weights,
)
from lengthwise.settings.assignments import with_options
from lengthwise.settings.config import Config, InputError
from lengthwise.settings.methods import method_of
from lengthwise.settings.own_methods import SomeMethod, own_source, use_method
from lengthwise.settings.sections import Padding
from lengthwise.tasks import find_task, is_own, register
from lengthwise.tasks.kept import TASK, check_kept, keep

# The longest operand that is taken: a few bytes a digit by lines alone; with a cache of all keys and
# values one answer of 200,000 digits needs about a gigabyte.
LONGEST, LONGEST_CACHED = 10_000_000, 200_000

# Cells of the largest sheet that is written: a few bytes each by lines; else as many as a cache holds.
LARGEST, LARGEST_CACHED = 100_000_000, 10_000


class Run:
    """A run folder, opened.

    Attributes:
        path: the folder.
        config: its settings.
        bias: the bias it was trained with.
    """

    if TYPE_CHECKING:  # `lengthwise.interop.hub` gives it these
        save_pretrained: Callable[..., Path]
        from_pretrained: Callable[..., Run]
        push_to_hub: Callable[..., str]

    def __init__(self, path: Path, config: Config, bias: AttentionBias) -> None:
        self.path, self.config, self.bias = path, config, bias
        self._task_class = find_task(config.task)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        device: str | None = None,
        set: Iterable[str] = (),
        task: type | None = None,
        method: SomeMethod | None = None,
    ) -> Run:
        """Open a run; of a folder made by `abc`, the calibrated one.

        Args:
            device: `auto`, `cpu` or `cuda`; by default where it was trained.
            set: assignments that change settings for this use of it, such as `"calibration.problems=64"`.
            task: the class of a task of a user's own, where the run was trained on one.
            method: the method, likewise, as of `train`.

        Raises:
            InputError: when the folder is no run, or holds a broken file.
        """
        path = as_path("path", path, "runs/addition")
        named = None if task is None else register(task).name  # type: ignore[attr-defined]
        if method is not None:
            use_method(method)
        if (path / CALIBRATED / CONFIG).exists():
            path = path / CALIBRATED
        if not (path / CONFIG).exists():
            what = "has no config.json" if path.is_dir() else "does not exist"
            if path.is_file():
                what = "is a file, not a folder"
            if (path / VANILLA / CONFIG).exists():
                what = f"is unfinished; `lengthwise abc ... --out {path} --resume` continues it"
            raise InputError(f"{path} is not a run: it {what}")
        config = read_config(path / CONFIG, with_options(set, device=device))
        bias = make_bias(config)
        if (path / BIAS).exists():
            bias = CalibratedBias.load(path / BIAS)
            # In the format before, what lines mean depends on how the problems are laid out.
            if bias.earlier and bias.task == config.task:
                bias = bias.bound(config.format)
            check_bias(bias, config)
        elif (path / MATRICES_FILE).exists():
            try:
                bias = MatrixBias.load(path / MATRICES_FILE)
            except ValueError as error:
                raise InputError(str(error)) from error
            check_bias(bias, config)
        check_parts(path)
        if named not in (None, config.task):
            raise InputError(f"{path} was trained on {config.task}, not on {named}")
        if is_own(config.task):
            check_kept(path, config.make_task())
        check_method(path, config)
        check_ways(bias, config)
        run = cls(path, config, bias)
        if (path / WEIGHTS).exists():
            check_described(path / WEIGHTS, config, bias)
        return run

    @classmethod
    def create(cls, path: Path, config: Config, bias: CalibratedBias | MatrixBias | None) -> Run:
        """Make the folder and write what is known before training."""
        bias = fitted(bias, config)
        check_new(config, bias)
        files = []
        if bias is not None:
            files = [BIAS if isinstance(bias, CalibratedBias) else MATRICES_FILE]
            bias.save(path / files[0])
        if is_own(config.task):
            keep(path, config.make_task())
            files.append(TASK)
        code = own_source(config.model.positions, config.model.bias)
        if code is not None:
            write_text(path / METHOD_CODE, code)
            files.append(METHOD_CODE)
        write_text(path / VERSIONS, json.dumps(versions(), indent=2) + "\n")
        save_config(path, config, files)
        return cls(path, config, bias or make_bias(config))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.config.task}, seed {self.config.seed})"

    @cached_property
    def task(self) -> Any:
        """The task, a `Transducer` or a `Worksheet`."""
        return self.config.make_task()

    @cached_property
    def device(self) -> torch.device:
        return make_device(self.config.device)

    @cached_property
    def longest(self) -> int:
        """The most digits that an operand may have; of sheets there is a limit of cells besides."""
        return LONGEST if follows_lines(self.config, self.bias) else LONGEST_CACHED

    @cached_property
    def model(self) -> Transformer:
        """The trained model, in evaluation mode.

        Raises:
            InputError: when training has not finished, or the weights are broken or do not fit.
        """
        path = self.path / WEIGHTS
        if not path.exists():
            finish = f"train {self.path / CONFIG} --out {self.path}"
            if self.path.name in (VANILLA, CALIBRATED) and is_pipeline(self.path.parent):
                # The name of a user's own task may not be known elsewhere; its settings are.
                task = self.path / CONFIG if is_own(self.config.task) else self.config.task
                finish = f"abc {task} --out {self.path.parent}"
            raise InputError(
                f"{self.path} holds no trained model yet; finish it with `lengthwise {finish} --resume`"
            )
        check_shapes(path, self.config)
        # Whoever asks first may be inside inference mode; the weights must not be bound to it.
        with torch.inference_mode(False):
            model = make_model(self.config)
            load_weights(model, path)
            return model.to(self.device).eval()

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that tell the trained model from every other."""
        weights = (self.path / WEIGHTS).read_bytes()
        return sha256(weights + describe(self.config, self.bias).encode())[:16]

    @property
    def method(self) -> str:
        """`calibrated` with a calibrated bias, `matrices` with one of matrices, else the method that the
        settings are, or `custom`."""
        if isinstance(self.bias, MatrixBias):
            return MATRICES
        return CALIBRATED if isinstance(self.bias, CalibratedBias) else method_of(self.config)

    def save_model(self, model: Transformer) -> None:
        """Write the weights."""
        save_weights(self.path / WEIGHTS, model, self.config, self.bias)
        # What was captured of the weights of before is not of these.
        (self.path / MAPS).unlink(missing_ok=True)
        for cached in ("model", "fingerprint"):
            self.__dict__.pop(cached, None)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: step, loss, exact_match, learning_rate, seconds, ...

        A last row that a crash cut off is left out.

        Raises:
            InputError: when another row is broken.
        """
        path = self.path / METRICS
        try:
            text = read_text(path) if path.exists() else ""
            return [from_json(row) for row in text.splitlines(keepends=True) if row.endswith("\n")]
        except ValueError as error:
            raise InputError(f"{path} holds a broken row: {error}") from error

    def layout(self, length: int, padding: Padding | None = None) -> Any:
        """The layout for problems of this length; of sheets, of so many columns and rows.

        Args:
            length: digits.
            padding: `answer`: by no more than the answer needs; `training`: at least to the training
                width; by default the first of `paddings`. With fixed matrices always the second.

        Raises:
            InputError: when the bias is of matrices that do not reach so far, or the task has been defined
                otherwise since the run was opened.
        """
        if find_task(self.config.task) is not self._task_class:
            check_kept(self.path, self.config.make_task())
            self._task_class = find_task(self.config.task)
        if self.config.is_sheet:
            return self.config.layout(length)
        width = length + self.task.growth
        if (padding or self.paddings(length)[0]) == "training" or isinstance(self.bias, MatrixBias):
            width = max(width, self.config.width)
        if isinstance(self.bias, MatrixBias) and width > self.bias.width:
            raise InputError(
                f"the bias of {self.path} is of fixed matrices for operands of at most "
                f"{self.bias.width - self.task.growth} digits, got {length}; `lengthwise convert` turns "
                f"them into lines, which are defined at every length"
            )
        return self.config.layout(width)

    def paddings(self, length: int | Size) -> tuple[Padding, ...]:
        """How problems of this length are padded in an evaluation; by `solve` as the first says.

        A model whose lines are anchored to operands does not mind. Another has learned one width: narrower
        problems are fair to it when they are padded to that, and are asked without padding, too.
        """
        padding, lines = self.config.evaluation.padding, isinstance(self.bias, CalibratedBias)
        if self.config.is_sheet:
            size = length if isinstance(length, Size) else Size(length, length)
            # A list with more in it would be another one.
            indifferent = lines or bool(self.task.from_left)
            if not size.fits(self.config.size) or size == self.config.size or indifferent:
                return ("answer",)
            return ("training", "answer") if padding == "auto" else (padding,)
        if padding != "auto":
            return (padding,)
        indifferent = lines or self.config.data.widths == "varied"
        if indifferent or length + self.task.growth >= self.config.width:
            return ("answer",)
        return ("training",) if isinstance(self.bias, MatrixBias) else ("training", "answer")

    @property
    def most_cells(self) -> int:
        """The most cells that a sheet may have."""
        return LARGEST if isinstance(self.bias, CalibratedBias) else LARGEST_CACHED

    def within(self, asked: Iterable[Any]) -> list[Any]:
        """Those of some lengths, of sheets sizes, that this model can be asked."""
        if self.config.is_sheet:
            return [size for size in asked if size.cells <= self.most_cells]
        return [length for length in asked if length <= self.longest]

    def check_size(self, size: Size) -> None:
        """Refuse a sheet that is larger than any that is written (`InputError`)."""
        if size.cells > self.most_cells:
            raise InputError(
                f"a sheet of {size} digits has {size.cells:,} cells; the limit is {self.most_cells:,}"
            )

    def solve(self, expression: str, work: bool = False) -> Any:
        """Answer an expression such as `12+3`, as a person writes it: for parity, the bit.

        Greedy decoding; how far operands are padded says `paddings`. A model that writes no number, or does
        not end it, has given no answer: the text begins with `no answer` then.

        Args:
            work: return the whole answer, what the model wrote included: an `Answer`, of sheets a `Sheet`,
                which shows itself laid out.

        Raises:
            InputError: when the expression is malformed or has more than `longest` digits.
        """
        text = as_text("expression", expression, self.task.example[0])
        (answer,) = self.answers([text])
        if not as_flag("work", work):
            return answer.text
        return getattr(answer, "sheet", answer)

    def solve_many(
        self, expressions: list[str], on_progress: Callable[[int, int], object] | None = None
    ) -> list[str]:
        """As `solve`, for several expressions of any lengths, side by side.

        Args:
            on_progress: called while it works, with the symbols written so far and their number.
        """
        return [answer.text for answer in self.answers(expressions, on_progress)]

    def answers(
        self, expressions: list[str], on_progress: Callable[[int, int], object] | None = None
    ) -> list[Answer]:
        """As `solve_many`, with what the model wrote."""
        expressions = as_texts("expressions", expressions, self.task.example[0], most=None)
        problems = [self.parse(expression) for expression in expressions]
        answer = answer_sheets if self.config.is_sheet else answer_columns
        return [*answer(self, problems, on_progress)]

    def parse(self, expression: str) -> list[str]:
        """The operands of an expression, without zeros on the left.

        Raises:
            InputError: as `solve`.
        """
        # Zeros on the left carry no value, and a width of their own would only cost time.
        parts = significant(self.task, self.task.parse(expression))
        longest = max(len(part) for part in parts)
        if longest > self.longest:
            raise InputError(f"an operand has {longest} digits; the limit is {self.longest}")
        if self.config.is_sheet:
            self.check_size(size_of(self.task, parts))
        return parts
