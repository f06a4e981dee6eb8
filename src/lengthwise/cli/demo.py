"""The demonstration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lengthwise.cli import options
from lengthwise.cli.commands import app, pace
from lengthwise.errors import InputError

DEMO_FOLDER = Path("runs/demo")
DEMO_EXPRESSION = "9" * 60 + "31415926535" + "9" * 60


@app.command("demo")
def demo_command(
    out: Annotated[
        Path, typer.Option(help="Folder to write; the default is replaced by each demo.")
    ] = DEMO_FOLDER,
    seed: options.Seed = None,
    device: options.Device = None,
    force: Annotated[
        bool, typer.Option("--force", help="Start over where --out names a run.")
    ] = False,
) -> None:
    """The whole method on successor, from nothing to a report, in less than a minute on two cores.

    Example: lengthwise demo
    """
    from lengthwise.api import abc
    from lengthwise.progress.display import print_curve
    from lengthwise.report.html import write_report
    from lengthwise.runs.folder import LOCK

    force = force or out == DEMO_FOLDER
    if not force and out.is_dir() and any(entry.name != LOCK for entry in out.iterdir()):
        raise InputError(
            f"{out} exists; --force deletes the run in it and starts over, another --out keeps it"
        )
    print(
        "Training a small transformer to count to six digits, then to every length.\n",
        file=sys.stderr,
    )
    outcome = abc("successor", seed=seed, device=device, out=out, force=force, progress=True)
    print_curve(outcome.curve)
    print(f"\n{outcome.bias.explain()}\n\n{outcome.proof}\n")
    answer = outcome.calibrated.solve(DEMO_EXPRESSION)
    right = answer == str(int(DEMO_EXPRESSION) + 1)
    print(f"The successor of the {len(DEMO_EXPRESSION)}-digit number\n  {DEMO_EXPRESSION}")
    print(f"is, says the model,\n  {answer}  ({'right' if right else 'WRONG'})\n")
    report_file = write_report([out], out / "report.html")
    length = outcome.vanilla.config.data.length
    print(f"{pace(outcome)}\nReport: {report_file}")
    print(f"Trained on at most {length} digits. {outcome.verdict}")
    raise typer.Exit(0 if right and outcome.right else 1)
