"""The command that measures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from lengthwise.cli import options
from lengthwise.cli.commands import app, print_json, say
from lengthwise.errors import InputError

if TYPE_CHECKING:
    from lengthwise.evaluation.curve import LengthCurve
    from lengthwise.runs.run import Run

# Numbers that a search for the first wrong answer asks at most.
_CEILING = 1_000_000

# The settings that change what is measured, or how.
_COUNTING = ("device", "attention", "evaluation.*")
_COUNTING_IN_RANGES = ("device", "attention", "decode", "evaluation.padding")


@app.command("evaluate")
def evaluate_command(
    run: options.RunFolder,
    lengths: options.Lengths = None,
    sizes: options.Sizes = None,
    samples: options.Samples = None,
    suite: Annotated[
        str | None, typer.Option(help="uniform or carry.", show_default="the run's")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the test problems.", show_default="the run's")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw accuracy against length into this file.")
    ] = None,
    wrong_positions: Annotated[
        Path | None,
        typer.Option(help="Decode, and count wrong symbols by their place: a picture, or .csv."),
    ] = None,
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="NUMBER", help="Ask every number from this one on instead."),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="NUMBER", help="... to this one, or `ceil`: the first mistake."
        ),
    ] = None,
    workers: options.Workers = 1,
    own_method: options.OwnMethod = None,
    set_: options.Set = None,
    attention: options.Attention = None,
    device: options.RunDevice = None,
    own_task: options.OwnTask = None,
    as_json: options.Json = False,
) -> None:
    """Measure exact match on unseen problems of each length.

    Example: lengthwise evaluate runs/addition --lengths 6,60,1000 --suite carry
    """
    from lengthwise.arguments import as_choice
    from lengthwise.evaluation import measure
    from lengthwise.pipeline.stages import Clock
    from lengthwise.problems.sampling import Suite
    from lengthwise.problems.sheet_sampling import SheetSuite
    from lengthwise.progress.display import observing, print_curve
    from lengthwise.runs.folder import check_output, results_folder
    from lengthwise.settings.assignments import refuse_uncounted, with_options

    known = dict.fromkeys([*get_args(Suite), *get_args(SheetSuite)])
    if lengths is not None and sizes is not None:
        raise InputError("--lengths and --sizes both say what to evaluate; give one of them")
    suites = None if suite is None else [as_choice("suite", suite, known)]
    changes = with_options(
        set_ or [],
        attention=attention,
        evaluation__lengths=options.parse_lengths(lengths),
        evaluation__sizes=options.parse_sizes(sizes),
        evaluation__suites=suites,
    )
    opened = options.open_run(run, own_task, device=device, set=changes)
    if first is not None or last is not None:
        others = lengths, sizes, samples, suite, seed, plot, wrong_positions
        if any(option is not None for option in others):
            raise InputError(
                "--from and --to ask numbers of one range; leave the other options out"
            )
        if opened.config.is_sheet:
            raise InputError("--from and --to ask numbers; problems of sheets are none")
        refuse_uncounted(changes, _COUNTING_IN_RANGES, "numbers of a range are asked")
        return _ask_range(opened, first, last, workers, as_json)
    refuse_uncounted(changes, _COUNTING, "a run is evaluated")
    keys = [assignment.partition("=")[0].strip() for assignment in set_ or []]
    if opened.config.is_sheet and "evaluation.lengths" in keys:
        raise InputError(
            f"evaluation.lengths does not count: problems of {opened.config.task} have evaluation.sizes"
        )
    if opened.config.is_sheet and wrong_positions is not None:
        raise InputError("--wrong-positions counts symbols of answers of one row; sheets have many")
    table = wrong_positions is not None and wrong_positions.suffix == ".csv"
    for file in filter(None, (plot, wrong_positions)):  # before anything is measured
        if file is plot or not table:
            from lengthwise.report.canvas import picture_format

            picture_format(file)
        check_output(file)
    for key in (assignment.partition("=")[0].strip() for assignment in changes):
        if samples is not None and key.endswith("samples"):
            raise InputError(f"--samples {samples} counts at every length; leave it or {key} out")
    config = opened.config
    chosen = config.asked if lengths is None else list(config.evaluation.lengths)
    suites: Any = config.evaluation.suites
    scores = len(suites) * sum(len(opened.paddings(at)) for at in chosen)
    kept = results_folder(run)
    with (
        observing(True, scores=scores) as observer,
        Clock(observer).stage("evaluate", opened.config),
    ):
        curve = measure(
            opened,
            chosen,
            suites=suites,
            samples=samples,
            seed=seed,
            workers=workers,
            on_progress=observer.scored,
            keep=lambda measured: _keep(measured, kept),
        )
    # First to the reader: in a folder that can't be written the measurement is not lost.
    if as_json:
        print_json(curve.records())
    else:
        print_curve(curve)
    _keep(curve, kept)
    if plot is not None:
        from lengthwise.report.plots import length_curve

        length_curve(curve, plot, trained=config.longest)
    if wrong_positions is not None:
        from lengthwise.evaluation.mistakes import count_mistakes, save_mistakes
        from lengthwise.report.plots import mistake_histogram

        mistakes = count_mistakes(opened, chosen, suites=suites, samples=samples, seed=seed)
        if table:
            save_mistakes(mistakes, wrong_positions)
        else:
            mistake_histogram(mistakes, wrong_positions, task=opened.config.task)


def _keep(curve: LengthCurve, folder: Path) -> None:
    """Add what was measured to the results of a run; of one that is only to be read, say that it is not."""
    from lengthwise.runs.folder import can_write, locked

    if not can_write(folder):
        return say(f"{folder} can't be written to, so these results are not kept there")
    with locked(folder):
        curve.add_to(folder)


def _ask_range(run: Run, first: str | None, last: str | None, workers: int, as_json: bool) -> None:
    from dataclasses import asdict

    from lengthwise.evaluation.mistakes import check_range

    if last is None:
        raise InputError(
            f"--from {first} needs --to: the last number, or `ceil` to stop at the first mistake"
        )
    start = _number("--from", first or "0")
    search = last == "ceil"
    stop = start + _CEILING - 1 if search else _number("--to", last)
    result = check_range(run, start, stop, stop_at_first=search, workers=workers)
    if as_json:
        return print_json(asdict(result))
    print(
        f"{result.correct} of {result.n} right ({result.correct / result.n:.2%}), from {result.first} "
        f"to {result.last}"
    )
    for number, answer, truth in result.wrong:
        print(f"{number}: {answer}, not {truth}")
    if result.n - result.correct > len(result.wrong):
        print(f"... and {result.n - result.correct - len(result.wrong)} more")


def _number(option: str, text: str) -> int:
    from lengthwise.paper_repo import evaluate_arithmetic

    try:
        value = evaluate_arithmetic(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error
    if value.denominator != 1 or value < 0:
        raise InputError(f"{option} takes a whole number from 0 up, got {text}")
    return int(value)
