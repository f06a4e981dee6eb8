"""The commands that prove."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lengthwise.cli import options
from lengthwise.cli.commands import app, print_json, say, show

SECOND = "python tools/check_certificate.py"
SECOND_OF_SHEETS = "python tools/check_sheet.py"


@app.command("prove")
def prove_command(
    run: options.RunFolder,
    budget: Annotated[
        int, typer.Option(min=1, help="Local contexts to check at most.")
    ] = 50_000_000,
    out: Annotated[
        Path | None,
        typer.Option(help="The certificate to write.", show_default="beside the weights"),
    ] = None,
    workers: options.Workers = 1,
    own_task: options.OwnTask = None,
    own_method: options.OwnMethod = None,
    as_json: options.Json = False,
) -> None:
    """Prove a calibrated model right at every length, or find a problem that it gets wrong.

    Exit code 0: proven; the certificate is written, and beside it the rule that it is of. 1: refuted,
    with a problem that the model gets wrong. 2: the proof does not apply, and why. An interrupted proof
    goes on where it was.

    Example: lengthwise prove runs/addition
    """
    from lengthwise.api.analysis import prove
    from lengthwise.proof import Certificate, estimate, rule_text, save_rule
    from lengthwise.runs.folder import CERTIFICATE, PROGRESS, can_write, check_output, locked

    if out is not None:
        check_output(out, own=CERTIFICATE)
    opened = options.open_run(run, own_task)
    # A run that is only to be read is proven as well; then nothing keeps how far the proof is.
    kept = can_write(opened.path)
    file = opened.path / PROGRESS if kept else None
    expected = estimate(opened)
    if expected.contexts <= budget:
        begun = file is not None and file.exists()
        again = "Going on with an interrupted proof; in all " if begun else "There are "
        shared = replace(expected, seconds=expected.seconds / workers)
        print(f"{again}{shared}", file=sys.stderr)
    with locked(opened.path) if kept else nullcontext():
        result = prove(opened, budget=budget, workers=workers, keep=file, progress=True)
        if not isinstance(result, Certificate):
            if kept:  # a counterexample is checked against it, too
                save_rule(opened.path, rule_text(opened.task))
        elif kept or out is not None:
            result.save(out or opened.path / CERTIFICATE)
        else:
            say(
                f"{opened.path} can't be written to, so the certificate is not kept; --out FILE writes it "
                f"elsewhere"
            )
    show(as_json, result.to_dict(), result)
    raise typer.Exit(0 if result.proven else 1)


@app.command("verify")
def verify_command(
    certificate: Annotated[
        Path,
        typer.Argument(metavar="CERTIFICATE", help="A certificate file; of RUN alone, its own."),
    ],
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder, or one made by abc.")
    ] = None,
    workers: options.Workers = 1,
    own_task: options.OwnTask = None,
    own_method: options.OwnMethod = None,
    as_json: options.Json = False,
) -> None:
    """Check that a certificate is of this run and of the task's rule, and prove it again.

    A second program, which shares no code with this one, checks it too:
    python tools/check_certificate.py RUN (installed: python -m lengthwise.tools.check_certificate RUN).

    Example: lengthwise verify runs/addition
    """
    from lengthwise.errors import InputError
    from lengthwise.pipeline.stages import Clock
    from lengthwise.progress.display import observing
    from lengthwise.proof import Certificate, verify
    from lengthwise.runs.folder import CERTIFICATE

    if run is None and certificate.is_file():
        raise InputError(f"name the run beside its certificate: verify {certificate} RUN")
    alone, run = run is None, run or certificate
    # First: a certificate of a user's own task names what its run keeps.
    opened = options.open_run(run, own_task)
    if alone:
        certificate = opened.path / CERTIFICATE
        if not certificate.exists():
            raise InputError(
                f"{opened.path} has no certificate; `lengthwise prove {run}` makes one"
            )
    given = Certificate.load(certificate)
    with observing(True) as observer, Clock(observer).stage("prove", opened.config):
        result = verify(given, opened, workers=workers, on_progress=observer.checked)
    if as_json:
        print_json({**result.to_dict(), "binds_rule": given.binds_rule})
    else:
        print(result)
        if not given.binds_rule:
            print(
                f"  the certificate is of an earlier version and binds no rule; `lengthwise prove {run}` "
                f"renews it"
            )
        if not getattr(opened.bias, "earlier", False):  # whose lines that program does not read
            program = SECOND_OF_SHEETS if opened.config.is_sheet else SECOND
            print(f"  a second program that shares no code checks it too: {program} {run}")
    raise typer.Exit(0 if result.proven else 1)
