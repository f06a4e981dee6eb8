"""The commands that show biases and settings, and turn files of the paper's code into ours, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lengthwise.cli import options
from lengthwise.cli.commands import app, print_bias, print_json, show
from lengthwise.errors import InputError
from lengthwise.files import read_text

if TYPE_CHECKING:
    from lengthwise.bias import AttentionBias, CalibratedBias, MatrixBias
    from lengthwise.runs.run import Run

Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="The task of matrices that do not say it; or another that lines are to serve; of your own, "
        "its file.",
        show_default="by size",
    ),
]

# Operands of a picture of a bias that is defined at every width.
_DRAWN_DIGITS = 6


@app.command("explain")
def explain_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|FILE...", help="A run folder, a bias file, or a pair of .t files."
        ),
    ],
    task: Task = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Also draw which keys are open; of a vanilla run, its attention."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Say a bias in words: what each head reads.

    Example: lengthwise explain windowCross.t windowSelf.t --plot heads.png
    """
    from lengthwise.bias import CalibratedBias, MatrixBias
    from lengthwise.paper_repo import read_bias
    from lengthwise.runs.folder import VANILLA

    missing = [path for path in files if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]} does not exist")
    name = options.name_of(task) or task
    if all(path.is_file() for path in files):
        bias: AttentionBias = _for_task(read_bias(files, name), name)
        _draw(bias, plot)
        return _print_any(bias, as_json)
    if len(files) > 1 or (task is not None and task == name):
        raise InputError("explain takes one run folder, or the files of one bias and their --task")
    opened = options.open_run(files[0], task)
    _draw(opened.bias, plot, opened)
    if isinstance(opened.bias, CalibratedBias | MatrixBias):
        _print_any(opened.bias, as_json)
        if isinstance(opened.bias, CalibratedBias) and not as_json:
            _print_evidence(opened.path, opened.bias)
    elif as_json:
        vanilla = {"vanilla": True} if opened.method == VANILLA else {}
        print_json({**vanilla, "method": opened.method, "bias": str(opened.bias)})
    else:
        print(f"{files[0]} is {opened.method}: {opened.bias}")


@app.command("convert")
def convert_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="A bias, a pair of .t files, a checkpoint, or a run."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Lines (.jsonl), matrices (.safetensors), tensors (.t), or a run folder."
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="The .ini file that a checkpoint was trained with.")
    ] = None,
    task: Task = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Digits that operands are padded to in matrices.")
    ] = None,
    set_: options.Set = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Turn biases and checkpoints of the paper's code into ours, and biases back.

    A bias of lines becomes one of another task, such as parity's from successor's.

    Example: lengthwise convert windowCross.t windowSelf.t --task addition --out bias.jsonl
    """
    from lengthwise import paper_repo
    from lengthwise.runs.folder import check_output

    notes, written = [], [out]
    if width is not None and out.suffix not in (".safetensors", ".t"):
        raise InputError(f"--width is of matrices, .safetensors or .t, got {out}; leave it out")
    if task is not None and (config is not None or files[0].is_dir()):
        raise InputError(
            "--task is of a bias by itself; a model keeps the task that it was trained on"
        )
    check_output(out)
    if config is not None:
        paper_repo.convert_checkpoint(
            files[0],
            paper_repo.load_ini(config),
            out,
            set=tuple(set_ or ()),
            bias=tuple(files[1:]),
            force=force,
        )
    elif files[0].is_dir():
        if len(files) > 1:
            raise InputError("a run becomes one with lines by itself; leave the other files out")
        if set_:
            raise InputError("a run becomes one with lines under its own settings; leave --set out")
        _, notes = paper_repo.convert_run(files[0], out, force=force)
    else:
        if set_:
            raise InputError(
                "--set changes the settings of a checkpoint; name its .ini with --config"
            )
        name = options.name_of(task) or task
        bias = _for_task(paper_repo.read_bias(files, name), name)
        if out.suffix == ".jsonl":
            lines, notes = paper_repo.find_lines(bias)
            lines.save(out)
        elif out.suffix == ".safetensors":
            paper_repo.save_dense_bias(bias, out, width)
        elif out.suffix == ".t":
            written = paper_repo.save_matrices(bias, out, width)
        else:
            raise InputError(
                f"a bias becomes a .jsonl, .safetensors or .t file, got {out}; a checkpoint needs --config"
            )
    names = [str(path) for path in written]
    show(as_json, {"written": names, "notes": notes}, "\n".join([*notes, *names]))


@app.command("config")
def config_command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Such as default, which has every setting."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print a settings file that comes with lengthwise, or list them.

    Example: lengthwise config default > mine.toml
    """
    from lengthwise.arguments import as_choice
    from lengthwise.settings.files import load_config, shipped_configs

    known = shipped_configs()
    if name is None:
        paths = {key: str(path) for key, path in known.items()}
        return show(as_json, paths, "\n".join(f"{key}  {path}" for key, path in paths.items()))
    as_choice("settings file", name, known)
    if as_json:
        print_json(load_config(known[name]))
    else:
        print(read_text(known[name]), end="")


def _print_evidence(path: Path, bias: CalibratedBias) -> None:
    """What the vanilla model showed of the lines of a calibrated one, where its attention is kept."""
    from lengthwise.calibration import kept_maps
    from lengthwise.calibration.account import describe
    from lengthwise.runs.folder import CONFIG, VANILLA
    from lengthwise.runs.run import Run

    vanilla = path.parent / VANILLA
    maps = kept_maps(Run.open(vanilla)) if (vanilla / CONFIG).exists() else None
    if maps is not None:
        print(
            "\nWhat the vanilla model showed (support: attention beyond uniform, in the query that"
        )
        print("gives least; need: what closing the line costs a problem)")
        print("\n".join(describe(maps, bias)))


def _for_task(bias: CalibratedBias | MatrixBias, task: str | None) -> CalibratedBias | MatrixBias:
    """Lines for another task, where one is named that is laid out alike."""
    from lengthwise.arguments import as_choice
    from lengthwise.bias import MatrixBias
    from lengthwise.tasks import ALL_TASKS

    if isinstance(bias, MatrixBias):
        return bias
    try:
        # A file of the format before does not say how problems are laid out.
        for line in () if bias.earlier or bias.format.is_sheet else bias.lines:
            line.track.check(bias.format.at(1))
        if task is None or task == bias.task:
            return bias
        return bias.transferred(as_choice("task", task, ALL_TASKS))
    except ValueError as error:
        raise InputError(str(error)) from error


def _print_any(bias: CalibratedBias | MatrixBias, as_json: bool) -> None:
    """A bias in words, or as JSON; of matrices also which heads are lines."""
    import json

    from lengthwise.bias import CalibratedBias, trace_lines

    if isinstance(bias, CalibratedBias):
        return print_bias(bias, as_json)
    traced = trace_lines(bias)
    if as_json:
        rows = [json.loads(row) for row in traced.lines.to_json_lines().splitlines()]
        rest = traced.describe_rest()
        return print_json(
            {"matrices": str(bias), "exact": traced.exact, "lines": rows, "rest": rest}
        )
    print(bias)
    print(
        "Every head is lines, a few cells at the edge aside; they are"
        if traced.exact
        else "Not every head is lines; those that are"
    )
    print(traced.lines.explain())
    for sentence in traced.describe_rest():
        print(f"  {sentence}")


def _draw(bias: AttentionBias, path: Path | None, run: Run | None = None) -> None:
    """Draw the keys that a bias leaves open; of a vanilla run, the attention that was captured."""
    if path is None:
        return
    from lengthwise.bias import CalibratedBias, MatrixBias
    from lengthwise.calibration import capture, kept_maps
    from lengthwise.report.notebook import plot
    from lengthwise.report.plots import bias_map
    from lengthwise.report.sheet_plots import sheet_map

    joint = run is not None and run.config.model.joint
    if isinstance(bias, MatrixBias):
        bias_map(bias, bias.format.at(bias.width), path, joint=joint)
    elif isinstance(bias, CalibratedBias) and bias.format.is_sheet:
        sheet_map(bias, path)
    elif isinstance(bias, CalibratedBias):
        layout = bias.format.at(_DRAWN_DIGITS + bias.format.task.growth)
        bias_map(bias, layout, path, joint=joint)
    elif run is not None:
        plot(kept_maps(run) or capture(run), path)
