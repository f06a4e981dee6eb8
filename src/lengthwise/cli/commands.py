"""The commands: thin, each a few calls into the package, which is loaded when a command runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lengthwise.cli import options
from lengthwise.errors import InputError
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
    task: options.TaskOrFile,
    out: options.Out = None,
    seed: options.Seed = None,
    length: options.Length = None,
    lengths: options.Lengths = None,
    sizes: options.Sizes = None,
    set_: options.Set = None,
    device: options.Device = None,
    resume: options.Resume = False,
    force: options.Force = False,
    prove: Annotated[
        bool | None,
        typer.Option(
            "--prove/--no-prove",
            help="Prove the model right at every length, and drill what the proof finds wrong.",
            show_default="where a proof applies",
        ),
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what it will take, and write nothing.")
    ] = False,
    workers: options.Workers = 1,
    as_json: options.Json = False,
) -> None:
    """Train, capture, calibrate, retrain, prove, evaluate, report.

    Exit code 0: the model is proven; or no proof speaks about it, and it is right on all problems measured.
    1: neither. 2: it could not be done, or --prove was asked for and no proof applies.

    Example: lengthwise abc addition --out runs/addition --lengths 6,60,1000
    """
    from lengthwise.api import abc
    from lengthwise.api.task_settings import abc_settings
    from lengthwise.forecast import forecast
    from lengthwise.progress.display import print_curve
    from lengthwise.proof import NotApplicable
    from lengthwise.report.html import write_report

    if lengths is not None and sizes is not None:
        raise InputError("--lengths and --sizes both say what to evaluate; give one of them")
    chosen, chosen_sizes = options.parse_lengths(lengths), options.parse_sizes(sizes)
    if estimate:
        for option, given in (("--resume", resume), ("--no-prove", prove is False)):
            if given:
                raise InputError(
                    f"--estimate says what each stage takes, from nothing to the proof; leave {option} out"
                )
        config = abc_settings(task, set_, chosen, length=length, seed=seed, device=device)
        expected = forecast(config, chosen, chosen_sizes)
        return show(as_json, expected.to_dict(), expected)
    outcome = abc(
        task,
        out=out,
        seed=seed,
        length=length,
        lengths=chosen,
        sizes=chosen_sizes,
        set=set_,
        device=device,
        resume=resume,
        force=force,
        prove=prove is not False,
        workers=workers,
        progress=True,
    )
    report_file = write_report([outcome.path], outcome.path / "report.html")
    if as_json:
        seconds = {stage: round(spent, 3) for stage, spent in outcome.seconds.items()}
        records = outcome.curve.records()
        proof = {} if outcome.proof is None else {"proof": outcome.proof.to_dict()}
        folder = str(outcome.path)
        said = {"right": outcome.right, "verdict": outcome.verdict}
        print_json({"folder": folder, "seconds": seconds, **said, **proof, "results": records})
    else:
        print_curve(outcome.curve)
        print(f"\n{outcome.bias.explain()}\n")
        if outcome.proof is not None:
            print(f"{outcome.proof}\n")
        print(f"{pace(outcome)}\nRun: {outcome.path}\nReport: {report_file}\n{outcome.verdict}")
    if prove and isinstance(outcome.proof, NotApplicable):
        raise typer.Exit(2)
    raise typer.Exit(0 if outcome.right else 1)


@app.command("train")
def train_command(
    task: options.TaskOrFile,
    out: options.Out = None,
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
            help="vanilla, nope, rope, alibi, t5, shaw, window, coupling, abacus, randomized, fire, "
            "kerple_log, hard_alibi, ...; one of your own: my_method.py, or my_method.py:Class.",
            show_default="what the settings say",
        ),
    ] = None,
    until: Annotated[
        str, typer.Option(help="interpolated; or proven, drilling what a proof finds wrong.")
    ] = "interpolated",
    epochs: Annotated[
        int | None, typer.Option(help="Train and keep so many epochs of an .ini file.")
    ] = None,
    seed: options.Seed = None,
    length: options.Length = None,
    set_: options.Set = None,
    attention: options.Attention = None,
    device: options.Device = None,
    resume: options.Resume = False,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Train one model until it interpolates, or is proven; under torchrun, on several processes.

    Example: lengthwise train addition --method rope --out runs/rope
    """
    from dataclasses import asdict

    from lengthwise.api import run_training
    from lengthwise.api.task_settings import training_settings
    from lengthwise.arguments import as_choice
    from lengthwise.proof import NotApplicable
    from lengthwise.runs.metrics import read_metrics
    from lengthwise.settings.assignments import with_options

    as_choice("end of training", until, ("interpolated", "proven"))
    config, loaded = training_settings(
        task,
        with_options(set_ or [], attention=attention),
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
        loaded,
        prove=until == "proven",
        out=out,
        resume=resume,
        force=force,
        progress=True,
    )
    if not main_process():
        return
    last = read_metrics(run)[-1]
    proven = {} if proof is None else {"proof": proof.to_dict()}
    # What the last measurement says, whatever ended the training.
    wanted = run.config.training
    good = last.exact_match >= wanted.exact_match and last.validation_loss <= wanted.loss
    how = "Interpolates after" if good else "Does not interpolate: trained for"
    said = (
        f"{how} {last.step} steps, {last.seconds:.1f} s: exact match {last.exact_match:.2%} of held-out "
        f"problems\n"
    )
    said += f"Run: {run.path}" if proof is None else f"{proof}\nRun: {run.path}"
    show(as_json, {"folder": str(run.path), **asdict(last), **proven}, said)
    if proof is not None and not proof.proven:
        raise typer.Exit(2 if isinstance(proof, NotApplicable) else 1)


# The settings that count in a calibration by itself; attempts are those of abc.
_CALIBRATION = (
    *("device", "seed"),
    *(f"calibration.{name}" for name in ("policy", "lines", "problems", "kappa_*")),
)


@app.command("calibrate")
def calibrate_command(
    run: options.RunFolder,
    out: Annotated[Path, typer.Option(help="The bias file to write.")],
    policy: Annotated[
        str | None,
        typer.Option(help="auto, or paper for Algorithm 1.", show_default="the run's"),
    ] = None,
    kappa_cross: Annotated[
        float | None,
        typer.Option(min=0, help="Drop-off of the paper's policy.", show_default="the run's"),
    ] = None,
    kappa_self: Annotated[
        float | None,
        typer.Option(min=0, help="The same for self-attention.", show_default="the run's"),
    ] = None,
    lines: Annotated[
        str | None,
        typer.Option(
            help="fewest, or all that pass, to spare or not (auto).", show_default="the run's"
        ),
    ] = None,
    to_length: Annotated[
        int | None,
        typer.Option(min=1, help="Also write dense matrices for this length, as safetensors."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the problems.", show_default="the run's")
    ] = None,
    own_method: options.OwnMethod = None,
    set_: options.Set = None,
    device: options.RunDevice = None,
    own_task: options.OwnTask = None,
    as_json: options.Json = False,
) -> None:
    """Turn what a vanilla run attends to into a bias, and say it in words.

    Example: lengthwise calibrate runs/base --out addition.bias.jsonl
    """
    from lengthwise.arguments import as_choice
    from lengthwise.bias.dense import save_dense
    from lengthwise.calibration import calibrate, capture
    from lengthwise.pipeline.attempts import SELECTION
    from lengthwise.runs.folder import VANILLA, check_output
    from lengthwise.settings.assignments import refuse_idle, refuse_uncounted, with_options

    as_choice("policy", policy or "auto", ("auto", "paper"))
    as_choice("choice of lines", lines or "all", ("fewest", "all"))
    if to_length is not None and out.suffix == ".safetensors":
        raise InputError(f"{out} is where the dense matrices would go; name the bias otherwise")
    for file in (out, *([out.with_suffix(".safetensors")] if to_length else [])):
        check_output(file)
    changes = with_options(
        set_ or [],
        seed=seed,
        calibration__policy=policy,
        calibration__kappa_cross=kappa_cross,
        calibration__kappa_self=kappa_self,
        calibration__lines=lines,
    )
    folder = run / VANILLA if (run / VANILLA).exists() else run
    opened = options.open_run(folder, own_task, device=device, set=changes)
    refuse_idle(opened.config, changes)
    refuse_uncounted(changes, _CALIBRATION, "attention is captured and calibrated")
    maps = capture(opened)
    if maps.exact_match < 0.9:
        say(
            f"{folder} answers {maps.exact_match:.1%} of its training problems right; the lines of a model "
            f"that does not interpolate may mean nothing"
        )
    bias = calibrate(maps, **opened.config.calibration.model_dump(include=SELECTION))
    if to_length is not None:
        layout, layers = opened.layout(to_length, "answer"), opened.config.model.layers
        save_dense(out.with_suffix(".safetensors"), bias, layout, layers)
    bias.save(out)
    print_bias(bias, as_json)


@app.command("report")
def report_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders made by abc.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="DIR/report.html")
    ] = None,
    own_task: options.OwnTask = None,
    own_method: options.OwnMethod = None,
    as_json: options.Json = False,
) -> None:
    """Write one self-contained HTML file about one or more runs.

    Example: lengthwise report runs/addition-seed0 runs/addition-seed1 --out addition.html
    """
    from lengthwise.report.html import write_report
    from lengthwise.runs.folder import can_write

    target = out or folders[0] / "report.html"
    if out is None and folders[0].is_dir() and not can_write(folders[0]):
        raise InputError(
            f"can't write {target}: {folders[0]} is only to be read; --out FILE writes the report elsewhere"
        )
    written = write_report(folders, target, task=options.name_of(own_task))
    show(as_json, {"report": str(written)}, written)


@app.command("bench")
def bench_command(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]")] = None,
    as_json: options.Json = False,
) -> None:
    """Measure speed: matmul, train, calibrate, decode, lines, long, solve, sheets, peers, gpu; and scale.

    Example: lengthwise bench train decode --json
    """
    from lengthwise.bench import run_benchmarks

    result = run_benchmarks(names or [], on_progress=lambda text: print(text, file=sys.stderr))
    show(as_json, result.to_dict(), result.table())


def pace(outcome) -> str:
    """How long it took, in a sentence."""
    made = sum(outcome.seconds[stage] for stage in ("train", "calibrate", "retrain"))
    text = f"From nothing to the calibrated model: {made:.1f} s; "
    text += f"evaluation: {outcome.seconds['evaluate']:.1f} s"
    return text + (f"; proof: {outcome.seconds['prove']:.1f} s." if outcome.proof else ".")


def print_bias(bias: CalibratedBias, as_json: bool) -> None:
    """A bias in words, or as JSON."""
    # As it is understood, whichever format its file has.
    stated = type(bias)(bias.format, bias.heads, bias.lines).to_json_lines()
    rows = [json.loads(row) for row in stated.splitlines()]
    show(as_json, rows, bias.explain())


def main_process() -> bool:
    """Whether this is the one process, or the first that torchrun started."""
    alone = os.environ.get("WORLD_SIZE", "1") in ("", "1")
    return alone or os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """What is no result, on stderr."""
    print(f"lengthwise: {text}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def show(as_json: bool, value: Any, text: object) -> None:
    """Print what was found: a value as JSON, or the text that says the same."""
    if as_json:
        print_json(value)
    else:
        print(text)
