"""What is asked of a trained model from Python: capture, calibrate, apply, evaluate, prove."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

from torch import nn

from lengthwise import calibration, proof
from lengthwise.api.given import SomeRun, SomeSizes, as_bias, as_maps, as_run, as_sizes
from lengthwise.arguments import as_choice, as_choices, as_file, as_number, as_whole, as_wholes
from lengthwise.bias import CalibratedBias
from lengthwise.calibration import Lines, Maps, Policy
from lengthwise.errors import InputError
from lengthwise.evaluation import measure
from lengthwise.evaluation.curve import LengthCurve, Score
from lengthwise.own_models import Adapter, Applied, apply_bias, capture_own
from lengthwise.own_models.adapter import SomePositions
from lengthwise.own_models.tokens import SomeTokens
from lengthwise.pipeline.stages import Clock
from lengthwise.problems.format import Format
from lengthwise.problems.sampling import Suite
from lengthwise.problems.sheet_sampling import SheetSuite
from lengthwise.progress.display import observing
from lengthwise.proof import BUDGET, Certificate, Counterexample
from lengthwise.runs.folder import VANILLA


def capture(
    run: SomeRun | nn.Module | Adapter,
    format: Format | str | None = None,
    *,
    length: int | None = None,
    width: int | None = None,
    tokens: SomeTokens = None,
    problems: int | None = None,
    seed: int | None = None,
) -> Maps:
    """Average what the heads of a model read, and measure what each line is worth to it.

    Args:
        run: a run, or its folder; of what `abc` made, the vanilla one. Or a model of your own
            (docs/own_models.md), and then also:
        format: a task's name or file, or `lw.Format`: how its problems are written.
        length: digits of the longest operand that it was trained on.
        width: digits that operands are padded to; by default what the answer needs.
        tokens: its id for each character, `{"0": 15, ..., "+": 10, "^": 11, "$": 12}`, or a function that
            gives it; `^` stands before an answer, `$` behind it. By default in the order of our
            vocabulary.
        problems: how many are looked at (512).
        seed: of the problems (0).

    Raises:
        InputError: for what is no run and no model, and for a model whose attention can't be captured.
    """
    about = {"length": length, "width": width, "problems": problems, "seed": seed}
    given = {name: value for name, value in about.items() if value is not None}
    if isinstance(run, nn.Module | Adapter):
        if format is None or length is None:
            raise InputError(
                "of a model of your own say what it was trained on: lw.capture(model, 'addition', "
                "length=5)"
            )
        return capture_own(run, format, tokens=tokens, **given)
    if format is not None or tokens is not None or given:
        raise InputError(
            "format, tokens, length and their kin are of models of your own; a run knows its own"
        )
    return calibration.capture(as_run(run, VANILLA))


def apply(
    model: nn.Module | Adapter,
    bias: CalibratedBias | SomeRun,
    *,
    tokens: SomeTokens = None,
    positions: SomePositions = "off",
) -> Applied:
    """Let a model of your own read along the lines of a bias and nothing else, at every length.

    It counts from the call on, in training and in decoding; `with lw.apply(...):` takes it back at the
    end, `remove()` of what is returned at any time. See docs/own_models.md.

    Args:
        model: a model that `capture` takes, trained or fresh.
        bias: from `calibrate`, its file, or a run that has one.
        tokens: as for `capture`.
        positions: `off` switches them off; or the module, or modules, whose output shall be zero; or
            `on`, for a model that has none.

    Raises:
        InputError: for a bias that does not fit, a model that can't take one, or has one already.
    """
    found = as_bias(bias)
    found = CalibratedBias.load(found) if isinstance(found, Path) else found
    return apply_bias(model, found, tokens=tokens, positions=positions)  # type: ignore[arg-type]


def calibrate(
    maps: Maps | SomeRun,
    *,
    policy: Policy | None = None,
    kappa_cross: float | None = None,
    kappa_self: float | None = None,
    lines: Lines | None = None,
    extra: int = 0,
) -> CalibratedBias:
    """Turn attention maps into a bias that is defined at every length; see `lengthwise.calibration`.

    Args:
        maps: from `capture`, or the file of such; of a run, or its folder, they are captured first.
        policy: `auto`, or `paper` for Algorithm 1; like those below by default what the settings of a run
            say, where one is given.
        kappa_cross, kappa_self: drop-off thresholds of the paper's policy.
        lines: `fewest`, or `all` that pass, to spare or not (`auto` only).
        extra: lines to select beyond those (`auto` only).

    Raises:
        InputError: for what holds no maps, and no run.
        NoLinesError: when `auto` finds no line at cross-attention.
    """
    given: dict[str, Any] = {
        "policy": None if policy is None else as_choice("policy", policy, get_args(Policy)),
        "kappa_cross": None if kappa_cross is None else as_number("kappa_cross", kappa_cross),
        "kappa_self": None if kappa_self is None else as_number("kappa_self", kappa_self),
        "lines": None if lines is None else as_choice("lines", lines, get_args(Lines)),
    }
    extra = as_whole("extra", extra)
    captured, chosen = as_maps(maps)
    options = {name: getattr(chosen, name) if v is None else v for name, v in given.items()}
    return calibration.calibrate(captured, extra=extra, **options)


def evaluate(
    run: SomeRun,
    lengths: int | Iterable[int] | None = None,
    *,
    sizes: SomeSizes | None = None,
    samples: int | None = None,
    suites: str | Iterable[str] | None = None,
    seed: int | None = None,
    workers: int = 1,
    progress: bool | None = None,
    on_progress: Callable[[Score], object] | None = None,
) -> LengthCurve:
    """Measure exact match at each length; see `lengthwise.evaluation.exact_match`.

    Args:
        run: a run, or its folder; of what `abc` made, the calibrated one.
        lengths: digits, one or many; by default those of the run's settings.
        sizes: of sheets, columns and rows: `"20x15"`, `(20, 15)`, one or many.
        samples: problems of each length; by default 1000, and 200 past 100 digits.
        suites: `uniform`, `carry`, or both; by default those of the run's settings.
        seed: of the test problems; by default the run's.
        workers: processes of this machine that share the problems, a thread each; the scores are the same
            for any number of them, but for `seconds`, which counts those of all.
        progress: as for `train`.
        on_progress: called with each score, instead.

    Raises:
        InputError: for what is no run, and for numbers or suites that can't be asked.
    """
    opened, workers = as_run(run), as_whole("workers", workers, 1)
    if sizes is not None and lengths is not None:
        raise InputError("lengths and sizes both say what to evaluate; give one of them")
    if sizes is not None and not opened.config.is_sheet:
        raise InputError(f"sizes are of sheets; problems of {opened.config.task} have lengths")
    chosen = opened.config.asked
    if sizes is not None:
        chosen = as_sizes("sizes", sizes)
    elif lengths is not None:
        chosen = as_wholes("lengths", lengths)
    asked = opened.config.evaluation.suites if suites is None else suites
    known = get_args(SheetSuite if opened.config.is_sheet else Suite)
    of: Any = as_choices("suites", asked, known)
    scores = len(of) * sum(len(opened.paddings(at)) for at in chosen)
    with (
        observing(progress, scores=scores, of="scored", on_progress=on_progress) as observer,
        Clock(observer).stage("evaluate", opened.config),
    ):
        return measure(
            opened,
            chosen,
            suites=of,
            samples=samples,
            seed=seed,
            workers=workers,
            on_progress=observer.scored,
        )


def prove(
    run: SomeRun,
    *,
    budget: int = BUDGET,
    workers: int = 1,
    keep: Path | str | None = None,
    progress: bool | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> Certificate | Counterexample:
    """Prove that a calibrated model is right at every length, or find a problem that it gets wrong.

    Args:
        run: a run, or its folder; of what `abc` made, the calibrated one.
        budget: local contexts that may be checked at most.
        workers: processes of this machine that share the contexts, a thread each; the certificate is the
            same for any number of them.
        keep: a file that keeps how far the proof is, so that an interrupted one goes on from there.
        progress: as for `train`.
        on_progress: called with the contexts checked so far, and about how many there are, instead.

    Raises:
        InputError: for what is no run.
        NotApplicableError: for a model that the proof can't speak about, or more contexts than the
            budget.
    """
    opened, budget = as_run(run), as_whole("budget", budget, 1)
    workers = as_whole("workers", workers, 1)
    kept = None if keep is None else as_file("keep", keep, "proof.progress.json")
    with (
        observing(progress, of="checked", on_progress=on_progress) as observer,
        Clock(observer).stage("prove", opened.config),
    ):
        return proof.prove(
            opened, budget=budget, workers=workers, progress=kept, on_progress=observer.checked
        )
