"""A run folder for others: the files that a model consists of, those that speak about it, and a card."""

from __future__ import annotations

from pathlib import Path

from lengthwise.errors import InputError
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.files import from_json, read_text, write_bytes
from lengthwise.interop.card import write_card
from lengthwise.proof import Certificate, NotApplicableError
from lengthwise.runs.folder import (
    BIAS,
    CERTIFICATE,
    CONFIG,
    MATRICES_FILE,
    METHOD_CODE,
    RESULTS_CSV,
    RESULTS_JSON,
    RULE,
    VERSIONS,
    WEIGHTS,
    check_parts,
    results_folder,
)
from lengthwise.runs.run import Run
from lengthwise.tasks.kept import SOURCE, TASK

# What is read from a folder of others, and nothing else is downloaded.
PATTERNS = (
    *(CONFIG, WEIGHTS, BIAS, MATRICES_FILE, VERSIONS, TASK, SOURCE, METHOD_CODE),
    *(CERTIFICATE, RULE, RESULTS_CSV, RESULTS_JSON, "README.md"),
)

# Copied byte for byte, where they are there: hashes bind them.
_COPIED = (WEIGHTS, BIAS, MATRICES_FILE, VERSIONS, TASK, SOURCE, METHOD_CODE)


def write_folder(run: Run, folder: Path) -> None:
    """Write a run's files into a folder; config.json, by which it is known, comes last.

    Raises:
        InputError: when training has not finished, or a file is missing, broken or of another model.
    """
    check_parts(run.path)
    _ = run.model  # refuses weights that are missing, or do not fit
    certificate, curve = certificate_of(run), results_of(run)
    names = [name for name in _COPIED if (run.path / name).exists()]
    if certificate is not None:
        names += [name for name in (CERTIFICATE, RULE) if (run.path / name).exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_bytes(folder / name, (run.path / name).read_bytes())
    if curve.scores:
        curve.save(folder)
    write_bytes(folder / CONFIG, (run.path / CONFIG).read_bytes())


def refuse_others(folder: Path) -> None:
    """Refuse a folder that holds a model of Hugging Face transformers.

    Raises:
        InputError: for it; what else is no run, opening it says.
    """
    try:
        values = from_json(read_text(folder / CONFIG))
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(values, dict) and {"model_type", "architectures"} & values.keys():
        raise InputError(
            f"{folder} holds a model of Hugging Face transformers, not a run; load it there, and "
            f"lw.capture and lw.apply take it"
        )


def certificate_of(run: Run) -> Certificate | None:
    """The run's certificate, where it has one.

    Raises:
        InputError: when it is of another model, or broken.
    """
    path = run.path / CERTIFICATE
    if not path.exists():
        return None
    certificate = Certificate.load(path)
    try:
        other = certificate.differs(run)
    except NotApplicableError as error:
        raise InputError(f"{path} can't be of this run: {error}") from error
    if other is not None:
        raise InputError(
            f"{path} is of other {other} than the run's; `lengthwise prove {run.path}` makes it again"
        )
    return certificate


def results_of(run: Run) -> LengthCurve:
    """What was measured of this very model: of each question the row with the most problems."""
    folder = results_folder(run.path)
    if not (folder / RESULTS_JSON).exists():
        return LengthCurve([])
    rows = (score for score in LengthCurve.load(folder) if score.model == run.fingerprint)
    return LengthCurve(rows).most_careful()


def card_text(run: Run) -> str:
    """The card of a run, below its metadata."""
    return write_card(run, results_of(run), certificate_of(run))
