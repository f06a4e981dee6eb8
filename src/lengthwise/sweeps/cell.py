"""One cell of a sweep, from where it was stopped to its record, which is written last."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lengthwise.calibration import NoLinesError
from lengthwise.errors import InputError
from lengthwise.evaluation import measure
from lengthwise.evaluation.curve import LengthCurve, Score
from lengthwise.files import check_format, from_json, read_text, write_text
from lengthwise.pipeline import run_abc
from lengthwise.pipeline.attempts import train_and_calibrate
from lengthwise.pipeline.stages import Clock, Observer, Stage
from lengthwise.proof import Certificate, Counterexample
from lengthwise.runs.folder import CALIBRATED, VANILLA, WEIGHTS, locked
from lengthwise.runs.metrics import Metrics, read_metrics
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, make_config
from lengthwise.settings.own_methods import use_method
from lengthwise.sweeps.grid import ABC, code_of, hash_of
from lengthwise.sweeps.jobs import Say
from lengthwise.tasks.given import settings_of
from lengthwise.training.trainer import NotInterpolatedError

RUN, RECORD, FAILED = "run", "cell.json", "failed.json"
FORMAT = "lengthwise-cell/1"

# The stages of `abc` that come before the last, which proves and measures; each may be a job of its own.
STAGES = ("train", "retrain")

# Seconds that a cell waits for a process that holds its folder: one whose sweep has died is about to end.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Record:
    """What became of a cell.

    Attributes:
        name: of the cell.
        hash: of its settings, see `Cell`.
        interpolates: whether every training met its criterion.
        proven: whether its model is; None where no proof was asked for, or none speaks about it.
        steps: of its trainings.
        note: what else is to be said, in a line.
        seconds: that it took, since it was last begun.
        scores: of its models, in the order in which they were measured.
    """

    name: str
    hash: str
    interpolates: bool
    proven: bool | None
    steps: int
    note: str
    seconds: float
    scores: tuple[Score, ...]

    def save(self, folder: Path) -> None:
        """Write it into the cell's folder, whole or not at all."""
        write_text(folder / RECORD, json.dumps({"format": FORMAT, **asdict(self)}) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Record | None:
        """The record of a cell; None where it is not done.

        Raises:
            InputError: when it is broken.
        """
        path = folder / RECORD
        try:
            values = from_json(read_text(path))
            check_format(values.pop("format"), FORMAT)
            scores = tuple(Score(**score) for score in values.pop("scores"))
            return cls(**values, scores=scores)
        except FileNotFoundError:
            return None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} does not hold a cell: {error}; remove it") from error


def run_cell(folder: Path, values: dict[str, Any], say: Say) -> None:
    """Train and measure a cell; the work of its job.

    A model that does not interpolate is measured like the others: that it does not is the result.

    Args:
        folder: of the cell.
        values: `name`, `method`, `hash`, `files` and the `given` settings of a `Cell`, and whether to
            `prove`.
        say: hears how far it is.
    """
    began = time.perf_counter()
    config, observer, path = _config(values), _Sayer(say), folder / RUN
    with _held(folder):
        proven, note = None, ""
        if values["method"] == ABC:
            runs, curve, proven, note = _abc(config, path, values["prove"], observer)
        else:
            run, interpolates = _train(config, path, observer)
            runs, note = [run], "" if interpolates else "does not interpolate"
            curve = _measure(runs, observer)
            curve.add_to(path)
        Record(
            *(values["name"], values["hash"], not note, proven),
            steps=sum(read_metrics(run)[-1].step for run in runs),
            note=note,
            seconds=round(time.perf_counter() - began, 2),
            scores=tuple(curve),
        ).save(folder)


def run_stage(folder: Path, values: dict[str, Any], say: Say) -> None:
    """One of `STAGES` of a cell of the method `abc`; the last of its jobs finds what this one made.

    Args:
        folder, say: as for `run_cell`.
        values: as for `run_cell`, and the `stage`.
    """
    config, observer, path = _config(values), _Sayer(say), folder / RUN
    with _held(folder):
        if values["stage"] == "train":
            _train(config, path / VANILLA, observer)
        else:
            with contextlib.suppress(NotInterpolatedError, NoLinesError):  # the last job says so
                train_and_calibrate(config, path, Clock(observer), resume=True)
        write_text(folder / f"{values['stage']}.json", json.dumps({"hash": values["hash"]}) + "\n")


def do_nothing(folder: Path, values: dict[str, Any], say: Say) -> None:
    """A cell that costs nothing: what is left is what a sweep itself costs (`lengthwise bench scale`)."""
    Record(values["name"], values["hash"], True, None, 0, "", 0.0, ()).save(folder)


def _config(values: dict[str, Any]) -> Config:
    """The settings of a cell, as the process that planned it has them."""
    files = values.get("files", {})
    if "task" in files:
        settings_of(files["task"])
    if "method" in files:
        use_method(files["method"])
    config = make_config(values["given"])
    given = config.model_dump(mode="json", exclude_unset=True)
    if hash_of(values["method"], given, code_of(config)) != values["hash"]:
        raise InputError(
            "these settings, or the files of a task or a method, are others here than where the sweep was "
            "started; install the same lengthwise"
        )
    return config


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a cell's folder; a process that is about to end is waited for."""
    until = time.monotonic() + _PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except InputError as error:
                if "another process" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield


def _train(config: Config, path: Path, observer: Observer) -> tuple[Run, bool]:
    """Train a model, or go on; and whether it interpolates."""
    try:
        return Clock(observer).train("train", config, path, resume=True), True
    except NotInterpolatedError as error:
        return error.run, False


def _abc(
    config: Config, path: Path, prove: bool, observer: Observer
) -> tuple[list[Run], LengthCurve, bool | None, str]:
    """The whole method: its models, their scores, whether it is proven, and why there is no more."""
    try:
        made = run_abc(config, path, prove=prove, resume=True, observer=observer)
    except (NotInterpolatedError, NoLinesError) as error:
        parts = [path / part for part in (VANILLA, CALIBRATED)]
        runs = [Run.open(part) for part in parts if (part / WEIGHTS).exists()]
        note = str(error)
        if isinstance(error, NotInterpolatedError):
            note = f"the {error.run.path.name} model does not interpolate"
        curve = _measure(runs, observer)
        curve.add_to(path)
        return runs, curve, None, note
    proof = made.proof
    proven = proof.proven if isinstance(proof, Certificate | Counterexample) else None
    return [made.vanilla, made.calibrated], made.curve, proven, ""


def _measure(runs: list[Run], observer: Observer) -> LengthCurve:
    """Exact match of some models, as far as they can be asked."""
    curve = LengthCurve([])
    for run in runs:
        config = run.config
        observer.begin("evaluate", config)
        if at := run.within(config.asked):
            suites = config.evaluation.suites
            curve += measure(run, at, suites=suites, on_progress=observer.scored)
    return curve


class _Sayer(Observer):
    """Says in a few words how far a cell is."""

    def __init__(self, say: Say) -> None:
        self.say = say

    def begin(self, stage: Stage, config: Config) -> None:
        self.say(stage)

    def trained(self, stage: Stage, metrics: Metrics) -> None:
        self.say(f"{stage}: step {metrics.step:,}, exact {metrics.exact_match:.1%}")

    def scored(self, score: Score) -> None:
        self.say(f"evaluate: {score.size} digits {score.accuracy:.1%}")

    def checked(self, contexts: int, total: int) -> None:
        self.say(f"prove: {contexts:,} of {total:,} contexts")
