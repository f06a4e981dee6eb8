"""Runs on the Hugging Face Hub: saved, opened again and pushed, by the Hub's own conventions.

Once this is imported, runs have the three methods; the room of runs knows nothing of it. A saved folder
is a run folder with a card: `lengthwise solve FOLDER` and `Run.open` take it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lengthwise.arguments import as_flag, as_folder, as_text, refuse
from lengthwise.errors import InputError, shorten
from lengthwise.files import reason
from lengthwise.interop.folders import PATTERNS, refuse_others
from lengthwise.runs.folder import CONFIG, LOCK, WEIGHTS
from lengthwise.runs.run import Run
from lengthwise.settings.own_methods import SomeMethod, use_method
from lengthwise.tasks import register


def save_pretrained(run: Run, folder: Path | str, *, force: bool = False) -> Path:
    """Save a run for others: config.json, model.safetensors, its bias, certificate, results and a card.

    The card holds exact match by length, as it was measured, and what is proven. The folder appears
    whole or not at all.

    Args:
        folder: where to; it must hold nothing.
        force: write over what an earlier call wrote there.

    Returns:
        The folder.

    Raises:
        InputError: when training has not finished, a file of the run is missing or of another model, or the
            folder holds something.
    """
    from lengthwise.interop.mixin import RunOnHub

    path, force = as_folder("folder", folder, "shared/addition"), as_flag("force", force)
    if path.exists() and path.resolve() == run.path.resolve():
        raise InputError(f"{path} is the run itself; choose another folder")
    there = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if there and not force:
        raise InputError(
            f"{path} holds {there[0]}; choose another folder, or force=True writes over it"
        )
    if strange := [name for name in there if name not in (*PATTERNS, LOCK)]:
        raise InputError(
            f"{path} holds {strange[0]}, which no saved run has; choose another folder"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        whole = Path(temporary) / "whole"
        with _only_ours():
            RunOnHub(run).save_pretrained(whole)
        if there:
            path.rename(Path(temporary) / "before")
        elif path.exists():
            path.rmdir()
        whole.rename(path)
    return path


def from_pretrained(
    source: Path | str,
    *,
    device: str | None = None,
    task: type | None = None,
    method: SomeMethod | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | str | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Run:
    """Open a run that was saved by `save_pretrained`: a folder, or a repository of the Hub.

    Of a repository only files that a run consists of are downloaded; nothing in them is executed.

    Args:
        source: a folder that is there, else the name of a repository, such as `"someone/addition"`.
        device: `auto`, `cpu` or `cuda`; by default as its settings say.
        task, method: as of `Run.open`, where it was trained on, or with, a class of its author's own.
        revision, token, cache_dir, force_download, local_files_only: of the Hub; see huggingface_hub.

    Raises:
        InputError: when there is no such folder or repository, it holds no run, something is missing, or
            another version wrote it.
    """
    from lengthwise.interop.mixin import RunOnHub

    text = os.fspath(source) if isinstance(source, os.PathLike) else source
    text = as_text("source", text, "someone/addition")
    if not text.strip() or "\0" in text:
        refuse("source", "a folder, or a repository such as 'someone/addition'", text)
    folder = Path(os.path.expanduser(text))
    if task is not None:
        register(task)
    if method is not None:
        use_method(method)
    if folder.is_dir():
        refuse_others(folder)
        run = Run.open(folder, device=device, task=task)
    else:
        if folder.is_file() or folder.is_absolute() or text.startswith(("~", ".")):
            what = "is a file, not a folder" if folder.is_file() else "does not exist"
            raise InputError(f"{text} is no saved run: it {what}")
        with _said(f"{shorten(text)} is no folder here, and no repository to open"), _only_ours():
            run = RunOnHub.from_pretrained(
                text,
                device=device,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            ).run
    if not (run.path / WEIGHTS).exists():
        raise InputError(f"{text} holds no model: it has {CONFIG}, but no {WEIGHTS}")
    return run


def push_to_hub(run: Run, repo: str, **options: Any) -> str:
    """Save a run to a repository of the Hub, which is made where it is not there.

    Args:
        repo: its name, such as `"someone/addition"`.
        options: `private`, `token`, `commit_message`, `branch`, `create_pr` and others of
            huggingface_hub's `ModelHubMixin.push_to_hub`.

    Returns:
        The address of the commit.

    Raises:
        InputError: as `save_pretrained`; for a name that is none; when the Hub refuses or can't be reached.
    """
    from lengthwise.interop.mixin import RunOnHub

    repo = as_text("repo", repo, "someone/addition")
    with _said(f"nothing was pushed to {shorten(repo)}"), _only_ours():
        return RunOnHub(run).push_to_hub(repo, **options)


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """What the Hub and the way to it raise, in one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the Hub's client, and the network below it, raise many kinds
        raise InputError(f"{what}: {shorten(reason(error), 240)}") from error


@contextlib.contextmanager
def _only_ours() -> Iterator[None]:
    """Without the notes that the mixin prints of files that it does not find; ours are errors."""
    import logging

    logger = logging.getLogger("huggingface_hub.hub_mixin")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


for _name, _method in {
    "save_pretrained": save_pretrained,
    "from_pretrained": staticmethod(from_pretrained),
    "push_to_hub": push_to_hub,
}.items():
    setattr(Run, _name, _method)
