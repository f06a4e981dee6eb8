"""The commands that prove."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lengthwise.cli.commands import app, print_json, progress
from lengthwise.cli.options import Json, RunFolder

SECOND = "python tools/check_certificate.py"


@app.command("prove")
def prove_command(
    run: RunFolder,
    budget: Annotated[
        int, typer.Option(min=1, help="Local contexts to check at most.")
    ] = 50_000_000,
    as_json: Json = False,
) -> None:
    """Prove a calibrated model right at every length, or find a problem that it gets wrong.

    Exit code 0: proven; the certificate is written beside the weights, and the rule that it is of.
    1: refuted, with a problem that the model gets wrong. 2: the proof does not apply, and why. An
    interrupted proof goes on where it was.

    Example: lengthwise prove runs/addition
    """
    from lengthwise.config import InputError
    from lengthwise.folder import locked
    from lengthwise.proof import (
        CERTIFICATE,
        PROGRESS,
        Certificate,
        estimate,
        prove,
        rule_text,
        save_rule,
    )
    from lengthwise.run import Run

    opened = Run.open(run)
    file = opened.path / PROGRESS
    expected = estimate(opened)
    if expected.contexts <= budget:
        again = "Going on with an interrupted proof; in all " if file.exists() else "There are "
        print(f"{again}{expected}", file=sys.stderr)
    with locked(opened.path), progress() as display:
        try:
            result = prove(opened, budget=budget, progress=file, on_progress=display.checked)
        except KeyboardInterrupt:
            raise InputError("interrupted; the same command goes on from there") from None
        if isinstance(result, Certificate):
            result.save(opened.path / CERTIFICATE)
        else:
            # A counterexample is checked against it, too.
            save_rule(opened.path, rule_text(opened.task))
    if as_json:
        print_json(result.to_dict())
    else:
        print(result)
    raise typer.Exit(0 if result.proven else 1)


@app.command("verify")
def verify_command(
    certificate: Annotated[Path, typer.Argument(metavar="CERTIFICATE", help="A certificate file.")],
    run: RunFolder,
    as_json: Json = False,
) -> None:
    """Check that a certificate is of this run and of the task's rule, and prove it again.

    A second program, which shares no code with this one, checks it too:
    python tools/check_certificate.py RUN (installed: python -m lengthwise.tools.check_certificate RUN).

    Example: lengthwise verify runs/addition/calibrated/certificate.json runs/addition
    """
    from lengthwise.proof import Certificate, verify
    from lengthwise.run import Run

    given = Certificate.load(certificate)
    with progress() as display:
        result = verify(given, Run.open(run), on_progress=display.checked)
    if as_json:
        print_json({**result.to_dict(), "binds_rule": given.binds_rule})
    else:
        print(result)
        if not given.binds_rule:
            print(
                f"  the certificate is of an earlier version and binds no rule; `lengthwise prove {run}` "
                f"renews it"
            )
        print(f"  a second program that shares no code checks it too: {SECOND} {run}")
    raise typer.Exit(0 if result.proven else 1)
