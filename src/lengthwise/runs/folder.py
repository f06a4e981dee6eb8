"""The run folder's files: what they are called, and who may write them."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import lock_descriptor

from lengthwise.errors import shorten
from lengthwise.files import from_json, read_text, sha256, write_text
from lengthwise.settings.config import Config, InputError, make_config
from lengthwise.settings.files import FILES, load_config, load_values
from lengthwise.tasks.kept import SOURCE, TASK

CONFIG, VERSIONS, METRICS = "config.json", "versions.json", "metrics.jsonl"
WEIGHTS, CHECKPOINT = "model.safetensors", "checkpoint.pt"
BIAS, MAPS = "bias.jsonl", "maps.safetensors"
MATRICES_FILE = "bias.safetensors"
# The code of a method of a user's own; kept to be read, and to be named, never run by itself.
METHOD_CODE = "method.py"
LOCK = ".lock"
CALIBRATED, VANILLA, MATRICES = "calibrated", "vanilla", "matrices"
CHECKPOINTS, PLOTS = "checkpoints", "plots"
RESULTS_CSV, RESULTS_JSON, REPORT = "results.csv", "results.json", "report.html"
CERTIFICATE, RULE, PROGRESS = "certificate.json", "rule.json", "proof.progress.json"

# All that the package writes into a run folder.
_WRITTEN = {
    *(CONFIG, VERSIONS, METRICS, WEIGHTS, BIAS, CHECKPOINT, MAPS, MATRICES_FILE, LOCK),
    *(RESULTS_CSV, RESULTS_JSON, REPORT, CERTIFICATE, RULE, PROGRESS, TASK, SOURCE),
    METHOD_CODE,
}
_PICTURES = ("length.png", "attention.png", "bias.png", "training.png", "combined.png")

# A run that one of another calibration, or of another seed, took the place of.
_SET_ASIDE = re.compile(rf"({CALIBRATED}|{VANILLA})-\d+")

# What the system says where a file system has no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


def save_config(folder: Path, config: Config, others: Iterable[str] = ()) -> None:
    """Write the settings of a run, and the hashes of the other files without which it is another model."""
    named = {name: _hash(folder / name) for name in others}
    values = {**config.model_dump(mode="json"), FILES: named}
    write_text(folder / CONFIG, json.dumps(values, indent=2) + "\n")


def consists_of(config: Path) -> dict[str, str] | None:
    """The files that a run's config.json names, each with its hash; None where it does not say.

    Raises:
        InputError: when the file can't be read, or names what is no file of a run.
    """
    parts = load_values(config).get(FILES)
    if parts is None:
        return None
    if not isinstance(parts, dict) or not all(isinstance(v, str) for v in parts.values()):
        raise InputError(f"{config}: {FILES} is a table of names and hashes")
    for name in parts:
        # One elsewhere would be read whole, whatever it is.
        if name not in _WRITTEN:
            raise InputError(
                f"{config}: {FILES} names {shorten(name)!r}, which is no file of a run"
            )
    return parts


def check_parts(folder: Path) -> None:
    """Refuse a run that lacks a file that its model depends on, or holds another in its place.

    Raises:
        InputError: for the first such file.
    """
    parts = consists_of(folder / CONFIG)
    if parts is None:  # written by version 0.1
        return
    for name, wanted in parts.items():
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} lacks {name}, which its model was trained with and is another model without; "
                f"copy it from where the run was made"
            )
        if _hash(folder / name) != wanted:
            raise InputError(f"{folder / name} is not the file that its model was trained with")
    for name in (BIAS, MATRICES_FILE):
        if name not in parts and (folder / name).exists():
            raise InputError(f"{folder / name} is not of this run, which was trained without it")


def _hash(path: Path) -> str:
    """That of a file's content: of text whatever marks and line ends an editor gave it."""
    lines = path.suffix == ".jsonl"
    return sha256("\n".join(read_text(path).splitlines()).encode() if lines else path.read_bytes())


def written_by(folder: Path) -> str | None:
    """The version of lengthwise that wrote a run, as versions.json says; None where it does not."""
    try:
        values = from_json(read_text(folder / VERSIONS))
        return str(values["lengthwise"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a folder for writing. It is made; if nothing is written, it goes again.

    On a file system without locks, work goes on after a word on stderr.

    Raises:
        InputError: when another process holds it, or it can't be written.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    if (path / LOCK).is_symlink():  # opening it would make a file elsewhere
        raise InputError(f"{path / LOCK} is a link, which no lock of ours is; remove it")
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / LOCK).open("a")
    except FileExistsError as error:
        raise InputError(f"{path} is a file, not a folder") from error
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror}") from error
    try:
        with file:
            _lock(file.fileno(), path)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    if missing and [entry.name for entry in path.iterdir()] == [LOCK]:
                        (path / LOCK).unlink()
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # it is not empty: something was written
                folder.rmdir()


def _lock(descriptor: int, path: Path) -> None:
    try:
        if not lock_descriptor(descriptor, blocking=False):
            raise InputError(f"another process is writing {path}")
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise InputError(f"can't lock {path}: {error.strerror}") from error
        _say_without_locks(str(error.strerror))


@functools.cache
def _say_without_locks(why: str) -> None:
    """Say it once: a pipeline locks several folders."""
    print(
        f"lengthwise: this file system has no locks ({why}); see to it that nothing else writes the run",
        file=sys.stderr,
    )


def check_folder(path: Path, *, resume: bool | None, force: bool, pipeline: bool = False) -> None:
    """Refuse a folder that may not be written: never over an existing run without being told.

    Other programs' folders hold a config.json too, so that alone does not make one a run. `pipeline` says
    that the folder is to hold the runs of a pipeline, rather than one run. `resume` is None where the
    command can't go on with one.

    Raises:
        InputError: when the folder holds something and neither flag is given, or what it holds is
            no run; for both flags.
    """
    if resume and force:
        raise InputError("--resume continues what is there, --force starts over: choose one")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, not a folder")
    names = (
        {entry.name for entry in path.iterdir() if not _is_trace(entry)} if path.exists() else ()
    )
    if not names:
        return
    if not _holds_run(path):
        # Of a run that ended before it began, or that --force removed, there is nothing to lose.
        if not names <= {BIAS, MATRICES_FILE, VERSIONS} and written_by(path) is None:
            raise InputError(f"{path} exists and is not a run; choose another folder with --out")
        return
    writer = "abc" if is_pipeline(path) else "train"
    of_another = pipeline != is_pipeline(path)
    if resume and of_another:
        raise InputError(f"{path} was written by `lengthwise {writer}`, which continues it")
    if not resume and not force:
        goes_on = "" if resume is None else "--resume continues it, "
        if of_another:
            goes_on = f"it was written by `lengthwise {writer}`, "
        raise InputError(
            f"{path} exists; {goes_on}--force starts over and deletes that run, another --out keeps it"
        )


def prepare(path: Path, *, resume: bool | None, force: bool, pipeline: bool = False) -> None:
    """As `check_folder`; then remove what is in the way. Call it with the folder locked.

    `force` removes what the package wrote there, and nothing else.
    """
    check_folder(path, resume=resume, force=force, pipeline=pipeline)
    if not _holds_run(path):
        for name in (BIAS, MATRICES_FILE):
            (path / name).unlink(missing_ok=True)
    elif not resume:
        # What others put there stays; so do the notes of versions, by which the folder is known as ours.
        _remove_written(path, keep=(LOCK, VERSIONS))


def _holds_run(path: Path) -> bool:
    """Whether there are runs, or a config.json of ours: the note of versions says so, or its content."""
    if is_pipeline(path):
        return True
    if (path / VERSIONS).exists():
        return (path / CONFIG).exists()
    try:
        values = load_config(path / CONFIG)
        make_config(values)
    except InputError:
        return False
    return "task" in values


def is_pipeline(path: Path) -> bool:
    """Whether a folder holds the runs of a pipeline, finished or not."""
    parts = (path / part for part in (VANILLA, CALIBRATED, f"{VANILLA}-1"))
    return any((part / name).exists() for part in parts for name in (CONFIG, VERSIONS, LOCK))


def check_output(path: Path, own: str | None = None) -> None:
    """Refuse to write what is asked for over a file that a run consists of.

    Args:
        path: where it is to go.
        own: the file of a run that it is a newer version of, if there is one.

    Raises:
        InputError: when it would take such a file's place, or be taken for one.
    """
    if path.name in _WRITTEN and path.name != own and _holds_run(path.parent):
        raise InputError(
            f"{path} is the name of a file that the run in {path.parent} consists of; choose another"
        )


def results_folder(run: Path) -> Path:
    """Where results of a run are kept: of one that a pipeline made, beside those of the others."""
    named = run.resolve()  # it may be `.`, or a link
    inside = named.name in (VANILLA, CALIBRATED) and is_pipeline(named.parent)
    return named.parent if inside else run


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part"):
            return True
    except OSError:
        return False


def _remove_written(path: Path, keep: tuple[str, ...] = ()) -> None:
    for entry in sorted(path.iterdir()):
        if entry.name in keep or entry.is_symlink():
            continue
        if entry.is_file():
            if entry.name in _WRITTEN or _is_trace(entry):
                entry.unlink()
            continue
        if entry.name == VANILLA:
            _remove_written(entry, keep)
        elif entry.name == CALIBRATED or _SET_ASIDE.fullmatch(entry.name):
            _remove_written(entry, keep)
            # Beside what others put there the notes say whose the folder is; alone they are of no use.
            if all(left.name in keep for left in entry.iterdir()):
                _remove_written(entry)
        elif entry.name == CHECKPOINTS:
            for kept in sorted(entry.glob("step-*")):
                remove_run(kept)
        elif entry.name == PLOTS:
            for name in _PICTURES:
                (entry / name).unlink(missing_ok=True)
        else:
            continue
        _remove_empty(entry)


def remove_run(path: Path) -> None:
    """Remove what the package wrote of a run, and its folder, if nothing else is in it."""
    _remove_written(path)
    _remove_empty(path)


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()


def set_aside(path: Path) -> Path:
    """Give a run another name beside its own, `NAME-1` and so on, and return that."""
    number = 1
    while (other := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return path.rename(other)


def _is_trace(entry: Path) -> bool:
    """Whether it is a lock, or what a crash left of a file that was being written."""
    return entry.name == LOCK or (entry.name.startswith(".") and entry.suffix == ".part")
