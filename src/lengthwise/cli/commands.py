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
    Attention,
    Device,
    Force,
    Json,
    Length,
    Lengths,
    Out,
    Resume,
    RunDevice,
    RunFolder,
    Seed,
    Set,
    TaskOrFile,
    assign,
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
    bias: Annotated[
        Path | None,
        typer.Option(help="A bias to train with: .jsonl, or matrices (.safetensors, .t)."),
    ] = None,
    self_bias: Annotated[
        Path | None, typer.Option(help="The self-attention's, where .t files are a pair.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="vanilla, nope, learned, rope, alibi, t5, shaw, window, window_cpi, nope_window, ...",
            show_default="what the settings say",
        ),
    ] = None,
    until: Annotated[
        str, typer.Option(help="interpolated; or proven, drilling what a proof finds wrong.")
    ] = "interpolated",
    epochs: Annotated[
        int | None, typer.Option(help="Train and keep so many epochs of an .ini file.")
    ] = None,
    seed: Seed = None,
    length: Length = None,
    set_: Set = None,
    attention: Attention = None,
    device: Device = None,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train one model until it interpolates, or is proven; under torchrun, on several processes.

    Example: lengthwise train addition --method rope --out runs/rope
    """
    from dataclasses import asdict

    from lengthwise.api import find_bias, prove_training, settings, train
    from lengthwise.config import InputError
    from lengthwise.metrics import Metrics, read_metrics
    from lengthwise.proof import NotApplicable

    if bias is not None and method is not None:
        raise InputError(f"--bias is a method of its own; leave --method {method} out")
    assignments = [*(set_ or []), *assign(attention=attention)]
    config = settings(
        task,
        assignments,
        length=length,
        seed=seed,
        device=device,
        method=method,
        epochs=epochs,
    )
    loaded = find_bias(task, config, bias, self_bias)
    last: list[Metrics] = []
    proof = None
    where = {"bias": loaded, "out": out, "resume": resume, "force": force}
    with progress() as display:
        if until == "proven":
            run, proof = prove_training(config, observer=display, **where)
        else:
            stage = "train" if loaded is None else "retrain"
            display.begin(stage, config if loaded is None else config.for_retraining())

            def trained(metrics: Metrics) -> None:
                last[:] = [metrics]
                display.trained(stage, metrics)

            run = train(config, until=until, on_progress=trained, **where)  # type: ignore[arg-type]  # checked
            if last:
                display.end(stage, last[0].seconds)
    if not last:
        last = read_metrics(run)[-1:]
    if not main_process():
        return
    if as_json:
        proven = {} if proof is None else {"proof": proof.to_dict()}
        print_json({"folder": str(run.path), **asdict(last[0]), **proven})
    else:
        print(
            f"Interpolates after {last[0].step} steps, {last[0].seconds:.1f} s: exact match "
            f"{last[0].exact_match:.2%} of held-out problems"
        )
        print(f"{proof}\nRun: {run.path}" if proof else f"Run: {run.path}")
    if proof is not None and not proof.proven:
        raise typer.Exit(2 if isinstance(proof, NotApplicable) else 1)


@app.command("calibrate")
def calibrate_command(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="The bias file to write.")],
    policy: Annotated[str, typer.Option(help="auto, or paper for Algorithm 1.")] = "auto",
    kappa_cross: Annotated[
        float, typer.Option(min=0, help="Drop-off of the paper's policy.")
    ] = 4.5,
    kappa_self: Annotated[float, typer.Option(min=0, help="The same for self-attention.")] = 0.87,
    lines: Annotated[
        str, typer.Option(help="fewest, or all that pass, to spare or not (auto).")
    ] = "fewest",
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
    from lengthwise.folder import VANILLA, locked, save_dense
    from lengthwise.run import Run

    if policy not in ("auto", "paper"):
        raise InputError(unknown("policy", policy, ("auto", "paper")))
    if lines not in ("fewest", "all"):
        raise InputError(unknown("choice of lines", lines, ("fewest", "all")))
    if to_length is not None and out.suffix == ".safetensors":
        raise InputError(f"{out} is where the dense matrices would go; name the bias otherwise")
    changes = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    folder = run / VANILLA if (run / VANILLA).exists() else run
    opened = Run.open(folder, device=device, set=changes)
    with locked(opened.path):
        maps = capture(opened)
    bias = calibrate(
        maps, policy=policy, kappa_cross=kappa_cross, kappa_self=kappa_self, lines=lines
    )
    if to_length is not None:
        layout, layers = opened.layout(to_length), opened.config.model.layers
        save_dense(out.with_suffix(".safetensors"), bias, layout, layers)
    bias.save(out)
    print_bias(bias, as_json)


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
    """Measure speed: matmul, train, calibrate, decode, lines, long, solve, gpu; all of them by default.

    Example: lengthwise bench train decode --json
    """
    from lengthwise.bench import BENCHMARKS, run_benchmarks
    from lengthwise.config import InputError, unknown

    for name in names or []:
        if name not in BENCHMARKS:
            raise InputError(unknown("benchmark", name, BENCHMARKS))
    result = run_benchmarks(names or [], on_progress=lambda text: print(text, file=sys.stderr))
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
    from lengthwise.api import abc, refuse_windows, settings

    keys = ("length", "seed", "device")
    chosen = {key: arguments.pop(key, None) for key in keys}
    refuse_windows(task)
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


def print_bias(bias: CalibratedBias, as_json: bool) -> None:
    if as_json:
        print_json([json.loads(row) for row in bias.to_json_lines().splitlines()])
    else:
        print(bias.explain())


def main_process() -> bool:
    """Whether this is the one process, or the first that torchrun started."""
    alone = os.environ.get("WORLD_SIZE", "1") in ("", "1")
    return alone or os.environ.get("RANK", "0") == "0"


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))
