"""The commands: thin, each a few calls into the package, which is loaded when a command runs."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lengthwise.cli.options import (
    Device,
    Force,
    Json,
    Length,
    Lengths,
    Out,
    Resume,
    RunDevice,
    RunFolder,
    Samples,
    Seed,
    Set,
    ShowWork,
    TaskOrFile,
    parse_lengths,
)
from lengthwise.version import __version__

if TYPE_CHECKING:
    from lengthwise.bias import CalibratedBias

app = typer.Typer(
    name="lengthwise",
    help="Small transformers that compute correctly at every length.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lengthwise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_print_version,
            help="Print the version and stop.",
        ),
    ] = False,
) -> None:
    pass


@app.command("abc")
def abc_command(
    task: TaskOrFile,
    out: Out = None,
    seed: Seed = None,
    length: Length = None,
    lengths: Lengths = None,
    set_: Set = None,
    device: Device = None,
    resume: Resume = False,
    force: Force = False,
    prove: Annotated[
        bool, typer.Option("--prove", help="Also prove the model right at every length.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train, capture, calibrate, retrain, evaluate, report.

    Example: lengthwise abc addition --out runs/addition --lengths 6,60,1000
    """
    from lengthwise.display import print_curve
    from lengthwise.proof import NotApplicable
    from lengthwise.report.html import write_report

    outcome = run_abc(
        task,
        out=out,
        seed=seed,
        length=length,
        lengths=parse_lengths(lengths),
        set=set_ or [],
        device=device,
        resume=resume,
        force=force,
        prove=prove,
    )
    report_file = write_report([outcome.path], outcome.path / "report.html")
    if as_json:
        seconds = {stage: round(spent, 3) for stage, spent in outcome.seconds.items()}
        records = outcome.curve.records()
        proof = {} if outcome.proof is None else {"proof": outcome.proof.to_dict()}
        folder = str(outcome.path)
        print_json({"folder": folder, "seconds": seconds, **proof, "results": records})
    else:
        print_curve(outcome.curve)
        print(f"\n{outcome.bias.explain()}\n")
        if outcome.proof is not None:
            print(f"{outcome.proof}\n")
        print(f"{pace(outcome)}\nRun: {outcome.path}\nReport: {report_file}")
    if outcome.proof is not None and not outcome.proof.proven:
        raise typer.Exit(2 if isinstance(outcome.proof, NotApplicable) else 1)


@app.command("train")
def train_command(
    task: TaskOrFile,
    out: Out = None,
    bias: Annotated[Path | None, typer.Option(help="A calibrated bias to train with.")] = None,
    seed: Seed = None,
    length: Length = None,
    set_: Set = None,
    device: Device = None,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train one model until it interpolates; under torchrun, on several processes.

    Example: lengthwise train addition --out runs/base --set training.learning_rate=1e-3
    """
    from dataclasses import asdict

    from lengthwise.api import settings, train
    from lengthwise.training import Metrics, read_metrics

    config = settings(task, set_ or [], length=length, seed=seed, device=device)
    last: list[Metrics] = []
    with progress() as display:
        stage = "train" if bias is None else "retrain"
        display.begin(stage, config if bias is None else config.for_retraining())

        def trained(metrics: Metrics) -> None:
            last[:] = [metrics]
            display.trained(stage, metrics)

        run = train(config, bias=bias, out=out, resume=resume, force=force, on_progress=trained)
        if last:
            display.end(stage, last[0].seconds)
    if not last:
        last = read_metrics(run)[-1:]
    if not main_process():
        return
    if as_json:
        print_json({"folder": str(run.path), **asdict(last[0])})
    else:
        print(
            f"Interpolates after {last[0].step} steps, {last[0].seconds:.1f} s: exact match "
            f"{last[0].exact_match:.2%} of held-out problems\nRun: {run.path}"
        )


@app.command("calibrate")
def calibrate_command(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="The bias file to write.")],
    policy: Annotated[str, typer.Option(help="auto, or paper for Algorithm 1.")] = "auto",
    kappa_cross: Annotated[
        float, typer.Option(min=0, help="Drop-off of the paper's policy.")
    ] = 4.5,
    kappa_self: Annotated[float, typer.Option(min=0, help="The same for self-attention.")] = 0.87,
    to_length: Annotated[
        int | None,
        typer.Option(min=1, help="Also write dense matrices for this length, as safetensors."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the problems.", show_default="the run's")
    ] = None,
    set_: Set = None,
    device: RunDevice = None,
    as_json: Json = False,
) -> None:
    """Turn what a vanilla run attends to into a bias, and say it in words.

    Example: lengthwise calibrate runs/base --out addition.bias.jsonl
    """
    from lengthwise.attention_maps import capture
    from lengthwise.calibration import calibrate
    from lengthwise.config import InputError, unknown
    from lengthwise.run import VANILLA, Run, locked, save_dense

    if policy not in ("auto", "paper"):
        raise InputError(unknown("policy", policy, ("auto", "paper")))
    if to_length is not None and out.suffix == ".safetensors":
        raise InputError(f"{out} is where the dense matrices would go; name the bias otherwise")
    changes = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    folder = run / VANILLA if (run / VANILLA).exists() else run
    opened = Run.open(folder, device=device, set=changes)
    with locked(opened.path):
        maps = capture(opened)
    bias = calibrate(maps, policy=policy, kappa_cross=kappa_cross, kappa_self=kappa_self)
    if to_length is not None:
        layout, layers = opened.layout(to_length), opened.config.model.layers
        save_dense(out.with_suffix(".safetensors"), bias, layout, layers)
    bias.save(out)
    _print_bias(bias, as_json)


@app.command("evaluate")
def evaluate_command(
    run: RunFolder,
    lengths: Lengths = None,
    samples: Samples = None,
    suite: Annotated[
        str | None, typer.Option(help="uniform or carry.", show_default="both")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the test problems.", show_default="the run's")
    ] = None,
    set_: Set = None,
    device: RunDevice = None,
    as_json: Json = False,
) -> None:
    """Measure exact match on unseen problems of each length.

    Example: lengthwise evaluate runs/addition --lengths 6,60,1000 --suite carry
    """
    from lengthwise.api import evaluate
    from lengthwise.display import print_curve
    from lengthwise.run import Run, locked

    opened = Run.open(run, device=device, set=set_ or [])
    chosen = parse_lengths(lengths) or list(opened.config.evaluation.lengths)
    suites = ("uniform", "carry") if suite is None else (suite,)
    with progress(len(chosen) * len(suites)) as display:
        display.begin("evaluate", opened.config)
        curve = evaluate(
            opened,
            chosen,
            samples=samples,
            suites=suites,
            seed=seed,
            on_progress=display.scored,
        )
        display.end("evaluate", sum(score.seconds for score in curve))
    # First to the reader: in a folder that can't be written the measurement is not lost.
    if as_json:
        print_json(curve.records())
    else:
        print_curve(curve)
    with locked(run):
        curve.add_to(run)


@app.command("solve")
def solve_command(
    run: RunFolder,
    expressions: Annotated[
        list[str], typer.Argument(metavar="EXPRESSION...", help="Or - to read lines from stdin.")
    ],
    show_work: ShowWork = False,
    device: RunDevice = None,
    as_json: Json = False,
) -> None:
    """Answer expressions, each on its own line.

    Example: lengthwise solve runs/addition 987654321987654321987654321+1
    """
    from lengthwise.run import Run

    opened = Run.open(run, device=device)
    if expressions == ["-"]:
        expressions = sys.stdin.read().splitlines()
    answers = opened.answers(expressions)
    if as_json:
        rows = [
            {"expression": given, "answer": answer.text, "work": answer.work}
            for given, answer in zip(expressions, answers, strict=True)
        ]
        print_json([{k: row[k] for k in row if show_work or k != "work"} for row in rows])
        return
    for answer in answers:
        print(answer.text)
        if show_work:
            print(f"  written {answer.work}, least significant digit first")


@app.command("explain")
def explain_command(
    run: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run folder or a bias file.")],
    as_json: Json = False,
) -> None:
    """Say a bias in words: what each head reads.

    Example: lengthwise explain runs/addition
    """
    from lengthwise.bias import CalibratedBias
    from lengthwise.run import Run, load_bias

    bias = load_bias(run) if run.is_file() else Run.open(run).bias
    if isinstance(bias, CalibratedBias):
        _print_bias(bias, as_json)
    elif as_json:
        print_json({"vanilla": True})
    else:
        print(f"{run} is vanilla: every head sees the whole problem and all of the answer so far")


@app.command("report")
def report_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders made by abc.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="DIR/report.html")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML file about one or more runs.

    Example: lengthwise report runs/addition-seed0 runs/addition-seed1 --out addition.html
    """
    from lengthwise.report.html import write_report

    written = write_report(folders, out or folders[0] / "report.html")
    if as_json:
        print_json({"report": str(written)})
    else:
        print(written)


@app.command("bench")
def bench_command(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]")] = None,
    as_json: Json = False,
) -> None:
    """Measure speed: train, calibrate, decode; all of them by default.

    Example: lengthwise bench train decode --json
    """
    from lengthwise.bench import BENCHMARKS, run_benchmarks
    from lengthwise.config import InputError, unknown

    for name in names or []:
        if name not in BENCHMARKS:
            raise InputError(unknown("benchmark", name, BENCHMARKS))
    result = run_benchmarks(
        names or list(BENCHMARKS), on_progress=lambda text: print(text, file=sys.stderr)
    )
    if as_json:
        print_json(result.to_dict())
    else:
        print(result.table())


def pace(outcome) -> str:
    """How long it took, in a sentence."""
    made = sum(outcome.seconds[stage] for stage in ("train", "calibrate", "retrain"))
    text = f"From nothing to the calibrated model: {made:.1f} s; "
    text += f"evaluation: {outcome.seconds['evaluate']:.1f} s"
    return text + (f"; proof: {outcome.seconds['prove']:.1f} s." if outcome.proof else ".")


def run_abc(task: str, **arguments: Any):
    from lengthwise.api import abc, settings

    keys = ("length", "seed", "device")
    chosen = {key: arguments.pop(key, None) for key in keys}
    config = settings(task, arguments.pop("set", []), **chosen)
    lengths = arguments.pop("lengths", None) or list(config.evaluation.lengths)
    scores = 2 * len(lengths) * len(config.evaluation.suites)
    with progress(scores) as display:
        return abc(config, lengths=lengths, observer=display, **arguments)


@contextmanager
def progress(scores: int = 0):
    from lengthwise.display import Display

    with Display(scores, quiet=not main_process()) as display:
        yield display


def _print_bias(bias: CalibratedBias, as_json: bool) -> None:
    if as_json:
        print_json([json.loads(row) for row in bias.to_json_lines().splitlines()])
    else:
        print(bias.explain())


def main_process() -> bool:
    """Whether this is the one process, or the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))
