"""The notebook interface: train, capture, calibrate, evaluate, each one call.

```python
import lengthwise as lw

base = lw.train("addition", length=6)
maps = lw.capture(base)
bias = lw.calibrate(maps)
print(bias)
tuned = lw.train("addition", length=6, bias=bias)
curve = lw.evaluate(tuned, lengths=[6, 60, 1000])
tuned.solve("99999999999999999999+1")
```
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import lengthwise.report.notebook  # noqa: F401  # what is returned shows itself
from lengthwise.api.given import SomeRun, SomeSizes, as_sizes
from lengthwise.api.task_settings import (
    Assignments,
    SomeTask,
    abc_settings,
    settings,
    training_settings,
)
from lengthwise.arguments import as_choice, as_flag, as_folder, as_whole, as_wholes
from lengthwise.bias import CalibratedBias, MatrixBias
from lengthwise.pipeline import run_abc
from lengthwise.pipeline.outcome import Outcome, Proof
from lengthwise.pipeline.stages import Clock, Observer
from lengthwise.pipeline.until_proven import NotProvenError, train_until_proven
from lengthwise.problems.sizes import Size
from lengthwise.progress.display import observing
from lengthwise.proof import Counterexample, NotApplicable, NotApplicableError
from lengthwise.runs.folder import CALIBRATED
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, InputError
from lengthwise.settings.methods import method_of
from lengthwise.settings.own_methods import SomeMethod
from lengthwise.training.trainer import Progress

Until = Literal["interpolated", "proven"]
Wholes = int | Iterable[int]


def train(
    task: SomeTask,
    *,
    length: int | None = None,
    seed: int | None = None,
    bias: CalibratedBias | MatrixBias | SomeRun | None = None,
    self_bias: Path | str | None = None,
    method: SomeMethod | None = None,
    until: Until = "interpolated",
    out: Path | str | None = None,
    set: Assignments = (),
    device: str | None = None,
    epochs: int | None = None,
    resume: bool = False,
    force: bool = False,
    progress: bool | None = None,
    on_progress: Progress | None = None,
) -> Run:
    """Train a model until it interpolates, or until it is proven right at every length.

    Args:
        task: a task's name, a class or a file of one's own (see `settings`), a settings file (.toml, or
            .ini of the paper's code), or settings.
        length: digits of the longest training operand.
        seed: of weights and problems.
        bias: a calibrated bias, one of matrices, its file, or a run that has one; the model is then trained
            as the settings' `retraining` part says, without positions by default. Without it the model is
            vanilla, unless an .ini file names biases.
        self_bias: the other file, where self- and cross-attention have one each (.t).
        method: a name in `lengthwise.settings.methods.METHODS`, such as `rope` or `window`; one of your
            own, as `my_method.py` or `my_method.py:Class`, a class, or an object that holds settings; by
            default what the settings say, which is `vanilla` unless they say otherwise.
        until: `interpolated`, or `proven`: where the proof finds problems that the model gets wrong,
            another is trained on them besides, up to `calibration.attempts` times; the certificate is
            written beside the weights.
        out: the run folder; by default a new one under `runs/`.
        set: settings: `"training.learning_rate=1e-3"`, several of these, or a dictionary such as
            `{"training.learning_rate": 1e-3}`.
        device: `auto`, `cpu` or `cuda`.
        epochs: see `settings`.
        resume: continue an interrupted run, to the same weights as without the interruption.
        force: start over where a run exists.
        progress: by default one live line in a notebook and nothing elsewhere; True also shows what the
            command shows, on stderr; False shows nothing.
        on_progress: called with each row of metrics, instead.

    Returns:
        The run.

    Raises:
        InputError: for settings, a folder or a bias that can't be used.
        NotInterpolatedError: when the model does not interpolate within `training.max_steps`.
        NotProvenError: when it interpolates but is not proven; it holds the counterexample.
        NotApplicableError: when no proof can speak about the model.
    """
    config, bias = training_settings(
        task,
        set,
        length=length,
        seed=seed,
        device=device,
        method=method,
        epochs=epochs,
        bias=bias,
        self_bias=self_bias,
    )
    run, proof = run_training(
        config,
        bias,
        prove=as_choice("until", until, get_args(Until)) == "proven",
        out=out,
        resume=resume,
        force=force,
        progress=progress,
        on_progress=on_progress,
    )
    if isinstance(proof, Counterexample):
        raise NotProvenError(run, proof)
    if isinstance(proof, NotApplicable):
        raise NotApplicableError(proof.reason)
    return run


def run_training(
    config: Config,
    bias: CalibratedBias | MatrixBias | None,
    *,
    prove: bool,
    out: Path | str | None,
    resume: bool,
    force: bool,
    progress: bool | None,
    on_progress: Progress | None = None,
) -> tuple[Run, Proof | None]:
    """What `train` does with settings and a bias that are ready.

    Args:
        config, bias: from `training_settings`.
        prove: train until the model is proven.
        out, resume, force, progress, on_progress: as for `train`.

    Returns:
        The run; and the certificate, the counterexample, or why neither, where one was asked for.
    """
    if prove and _processes() > 1:
        raise InputError("one process proves; under torchrun use `train` without `--until proven`")
    flags = {"resume": as_flag("resume", resume), "force": as_flag("force", force)}
    stage, name = ("train", method_of(config)) if bias is None else ("retrain", CALIBRATED)
    path = _folder(out, f"{config.task}-{name}-seed{config.seed}")
    with observing(progress, of="trained", on_progress=on_progress) as observer:
        if prove:
            return train_until_proven(config, path, bias=bias, observer=observer, **flags)
        return Clock(observer).train(stage, config, path, bias=bias, **flags), None


def abc(
    task: SomeTask,
    *,
    length: int | None = None,
    seed: int | None = None,
    out: Path | str | None = None,
    lengths: Wholes | None = None,
    sizes: SomeSizes | None = None,
    prove: bool = True,
    set: Assignments = (),
    device: str | None = None,
    resume: bool = False,
    force: bool = False,
    workers: int = 1,
    progress: bool | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """The whole method: train, capture, calibrate, retrain, prove, evaluate. Arguments as for `train`.

    Args:
        lengths: digits to evaluate; by default those of the settings' `evaluation` part.
        sizes: of sheets, columns and rows to evaluate, such as `"20x15"` or `(20, 15)`, one or several.
        prove: prove the model right at every length where a proof applies (see `lengthwise.proof`), and
            train it on what the proof finds wrong.
        workers: processes of this machine that share the proof and the evaluation, with the same result.
        observer: is told how far it is, instead of what `progress` shows.

    Returns:
        What was made; its `verdict` is a sentence that says what was reached.
    """
    chosen = None if lengths is None else as_wholes("lengths", lengths)
    asked = None if sizes is None else as_sizes("sizes", sizes)
    if chosen and asked:
        raise InputError("lengths and sizes both say what to evaluate; give one of them")
    config = abc_settings(task, set, chosen, length=length, seed=seed, device=device)
    if _processes() > 1:
        raise InputError("the pipeline runs on one process; under torchrun use `train`")
    flags = {"resume": as_flag("resume", resume), "force": as_flag("force", force)}
    prove, workers = as_flag("prove", prove), as_whole("workers", workers, 1)
    path = _folder(out, f"{config.task}-abc-seed{config.seed}")
    if config.is_sheet:
        asked = asked or (None if chosen is None else [Size(n, n) for n in chosen])
    elif asked:
        raise InputError(f"sizes are of sheets; problems of {config.task} have lengths")
    else:
        asked = chosen
    scores = 2 * len(asked or config.asked) * len(config.evaluation.suites)
    with observing(progress, observer, scores=scores) as watching:
        return run_abc(
            config,
            path,
            lengths=asked,
            prove=prove,
            workers=workers,
            observer=watching,
            **flags,
        )


def _folder(out: Path | str | None, name: str) -> Path:
    """The folder to write: the one given, or the first of that name under `runs/` that is not there yet."""
    if out is not None:
        return as_folder("out", out)
    if _processes() > 1:
        raise InputError("several processes write one run; name its folder with --out")
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path


def _processes() -> int:
    """How many processes torchrun started, or 1."""
    given = os.environ.get("WORLD_SIZE") or "1"
    if not given.isdecimal():
        raise InputError(
            f"WORLD_SIZE, the environment's number of processes, must be a whole number, got {given!r}"
        )
    return int(given)


__all__ = ["Outcome", "abc", "settings", "train"]
