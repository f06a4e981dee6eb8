"""What the whole method will take, before any of it is done: a few steps of each stage are tried."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lengthwise.bias import OWN_TOKEN, AttentionBias, CalibratedBias, Line, Track
from lengthwise.pipeline import check_local
from lengthwise.problems.sizes import Size
from lengthwise.proof import NotApplicableError, estimate
from lengthwise.runs.parts import make_bias, make_device
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config
from lengthwise.tasks.near import LAST, SHEET, Near
from lengthwise.training.halves import shard_threads
from lengthwise.training.processes import make_accelerator
from lengthwise.training.trainer import Trainer

# Steps that warm up, and those of each of the three blocks of which the fastest counts.
_WARM, _TIMED = 3, 10

# An evaluation passes forward only, where a step passes back as well.
_FORWARD = 1 / 3

# Cells of sheets that are written, and judged, in a second.
_CELLS_A_SECOND = 1_000_000


@dataclass(frozen=True)
class Forecast:
    """What `abc` would take on this machine.

    Attributes:
        train_steps, retrain_steps: how many of each there may be at most; a model is done when it
            interpolates, which usually is far earlier.
        train_step, retrain_step: seconds of one.
        contexts: local contexts of a proof, about; None where none would apply.
        prove: seconds of it, about.
        problems: that are answered in the evaluation.
        evaluate: seconds of it, about.
    """

    train_steps: int
    train_step: float
    retrain_steps: int
    retrain_step: float
    contexts: int | None
    prove: float
    problems: int
    evaluate: float

    @property
    def most(self) -> float:
        """Seconds in all, if both trainings need all of their steps."""
        trainings = self.train_steps * self.train_step + self.retrain_steps * self.retrain_step
        return trainings + self.prove + self.evaluate

    def to_dict(self) -> dict[str, Any]:
        """The forecast as JSON values."""
        return {**asdict(self), "most": round(self.most, 1)}

    def __str__(self) -> str:
        def training(steps: int, each: float) -> str:
            return (
                f"{each * 1000:.1f} ms a step, at most {steps:,} steps ({duration(steps * each)})"
            )

        proof = "no proof applies"
        if self.contexts is not None:
            proof = f"about {self.contexts:,} local contexts, {duration(self.prove)}"
        return "\n".join(
            [
                f"Train a vanilla model:  {training(self.train_steps, self.train_step)}",
                f"Retrain with the bias:  {training(self.retrain_steps, self.retrain_step)}",
                f"Prove:                  {proof}",
                f"Evaluate:               {self.problems:,} problems, about {duration(self.evaluate)}",
                f"At most {duration(self.most)} in all. A training ends when its model interpolates, "
                f"usually long before its last step.",
            ]
        )


def forecast(
    config: Config, lengths: Iterable[int] | None = None, sizes: Iterable[str] | None = None
) -> Forecast:
    """Time a few steps of each stage; which lines calibration will find is guessed.

    Args:
        lengths: digits to evaluate, where they are not those of the settings.
        sizes: of sheets, likewise.

    Raises:
        InputError: for a task that is not local, or settings that no model can be trained with.
    """
    check_local(config)
    lengths = config.evaluation.lengths if lengths is None else list(lengths)
    retraining, bias = config.for_retraining(), _guess(config)
    train_step, _ = _time_step(config, make_bias(config))
    retrain_step, run = _time_step(retraining, bias)
    try:
        expected = estimate(run)
        contexts, prove = expected.contexts, expected.seconds
    except NotApplicableError:
        contexts, prove = None, 0.0
    problems, evaluate = _evaluation(config, retrain_step, lengths, sizes)
    return Forecast(
        train_steps=config.training.max_steps,
        train_step=train_step,
        retrain_steps=retraining.training.max_steps,
        retrain_step=retrain_step,
        contexts=contexts,
        prove=round(prove, 3),
        problems=2 * problems,
        evaluate=round(evaluate, 3),
    )


def forecast_training(config: Config) -> float:
    """Seconds that one model takes at most to be trained and evaluated, after a few steps that are timed.

    Raises:
        InputError: for settings that no model can be trained with.
    """
    step, _ = _time_step(config, make_bias(config))
    _, evaluate = _evaluation(config, step, config.evaluation.lengths)
    return config.training.max_steps * step + evaluate


def _evaluation(
    config: Config, step: float, lengths: Iterable[int], sizes: Iterable[str] | None = None
) -> tuple[int, float]:
    """Problems of the evaluation of one model, and about how many seconds it takes.

    Args:
        step: seconds of a step of its training.
        lengths, sizes: what is asked.
    """
    suites = len(config.evaluation.suites)
    if config.is_sheet:
        chosen = config.asked if sizes is None else [Size.parse(text) for text in sizes]
        problems = suites * sum(config.evaluation.samples_of(size) for size in chosen)
        # By lookup, in waves: the cells of a second as `lengthwise bench sheets` finds them.
        cells = suites * sum(size.cells * config.evaluation.samples_of(size) for size in chosen)
        return problems, cells / _CELLS_A_SECOND
    counts = {length: suites * config.evaluation.samples_at(length) for length in lengths}
    growth = config.make_task().growth
    a_row = step * _FORWARD / (config.training.batch_size * (config.width + 1))
    rows = sum(count * (length + growth + 1) for length, count in counts.items())
    return sum(counts.values()), rows * a_row


def _guess(config: Config) -> CalibratedBias:
    """A bias as calibration finds them: a head for each operand's digit, the others for the one before."""
    if config.is_sheet:
        return _guess_of_sheet(config)
    operands, heads = config.make_task().operands, config.model.heads
    anchors, lines = config.layout().anchors("cross"), [Line(OWN_TOKEN, h) for h in range(heads)]
    for head in range(heads):
        name, offset = operands[head % len(operands)].name, -(head // len(operands) % 2)
        lines.append(Line(Track.along(name, offset) if anchors[name].grows else Track(name), head))
    return CalibratedBias(config.format, heads, lines)


def _guess_of_sheet(config: Config) -> CalibratedBias:
    """What the rule sees, but for what the query's own token tells."""
    task, heads, lines = config.make_task(), config.model.heads, []
    before = Near(SHEET, 0, -1, task.fields[-1].name)
    own = [str(near) for near in task.nears if near.segment == SHEET and near != before]
    cross = [str(near) for near in task.nears if near.segment != SHEET]
    for head in range(heads):
        lines.append(Line(cross[head % len(cross)], head))
        lines.append(Line(own[head] if head < len(own) else LAST, head, 0))
        lines += [Line(LAST, head, layer) for layer in range(1, config.model.layers)]
    return CalibratedBias(config.format, heads, lines)


def _time_step(config: Config, bias: AttentionBias) -> tuple[float, Run]:
    """Seconds of a step of training, and a run, kept nowhere, with the model that took it."""
    with tempfile.TemporaryDirectory() as nowhere:
        run = Run(Path(nowhere) / "run", config, bias)
        accelerator = make_accelerator(make_device(config.device), find_unused=False)
        trainer = Trainer(config, run, accelerator)
        trainer.check()
        trainer.model.train()
        blocks = []
        with shard_threads(trainer.shards):
            for count in (_WARM, *[_TIMED] * 3):
                began = time.perf_counter()
                for _ in range(count):
                    trainer.one_step()
                blocks.append(time.perf_counter() - began)
        run.__dict__["model"] = trainer.bare.eval()
        return min(blocks[1:]) / _TIMED, run


def duration(seconds: float) -> str:
    """Seconds as people say them: `4 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
