"""The settings of a training or of the whole method, from what people pass for a task and set of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lengthwise.api.given import SomeRun, as_bias
from lengthwise.arguments import as_assignments, as_path, as_whole, refuse
from lengthwise.bias import CalibratedBias, MatrixBias
from lengthwise.paper_repo import SeedOptions, load_ini, read_bias
from lengthwise.runs.folder import BIAS, CONFIG, MATRICES_FILE, consists_of
from lengthwise.runs.settings import config_of_file
from lengthwise.settings.assignments import for_a_bias, refuse_idle, refuse_second, with_options
from lengthwise.settings.config import Config, InputError
from lengthwise.settings.files import load_config
from lengthwise.settings.method_tables import TABLES
from lengthwise.settings.own_methods import SomeMethod, chosen_method, own_name
from lengthwise.tasks import Transducer, Worksheet
from lengthwise.tasks.given import settings_of

# Settings as `as_assignments` takes them.
Assignments = str | Iterable[str] | Mapping[str, Any] | None
# A task's name, a class of a user's own or an instance of it, a file, or settings.
SomeTask = str | Path | Config | type | Transducer | Worksheet


def settings(
    task: SomeTask,
    assignments: Assignments = (),
    *,
    length: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    method: SomeMethod | None = None,
    epochs: int | None = None,
    with_bias: bool = False,
) -> Config:
    """Settings from a task or a settings file, changed by what is given besides.

    A task is a name, a class of one's own (`Transducer` or `Worksheet`) or an instance, or its file:
    `my_task.py` or `my_task.py:Class`, which is run; a table or a Turing machine (.toml); problems and
    answers (.jsonl). A method changes what the file says, assignments change what the method says.

    Args:
        with_bias: the model is to be trained with a calibrated bias: what is set of `training` counts for
            that training, which else the `retraining` part describes.
        epochs: for a file of the paper's code (.ini): train so many of its epochs, whatever the model
            answers; measure after each, and keep the model of each.

    Raises:
        InputError: for an unknown task, method or key, a value that is not allowed, a file that is none.
    """
    source, path = _source(task), None
    length = None if length is None else as_whole("length", length, 1)
    seed = None if seed is None else as_whole("seed", seed)
    epochs = None if epochs is None else as_whole("epochs", epochs, 1)
    ini = source if isinstance(source, SeedOptions) else None
    if epochs is not None and ini is None:
        raise InputError("epochs are those of an .ini file; else set training.max_steps")
    if isinstance(source, SeedOptions):
        values = source.settings(epochs)
    elif isinstance(source, dict):
        values = source
    elif isinstance(source, Config):
        values = source.model_dump(mode="json", exclude_unset=True)
    elif source.suffix in (".toml", ".json"):
        path, values = source, load_config(source)
    else:
        values = {"task": str(source)}
    given = with_options(assignments, data__length=length, seed=seed, device=device)
    if with_bias:
        values, given = for_a_bias(values, given)
    chosen = [] if method is None else chosen_method(method)
    if chosen:  # what a file says of another method's settings is not meant for this one
        values = {key: held for key, held in values.items() if key not in TABLES}
    config = config_of_file(path, values, [*chosen, *given])
    refuse_idle(config, given)
    if ini is not None and ini.load_pretrained and config.training.initial is None:
        raise InputError(
            f"{ini.path}: LOAD_PRETRAINED: name the run to start from with --set training.initial=RUN "
            f"(`lengthwise convert` makes one of a checkpoint)"
        )
    return config


def _source(task: SomeTask) -> Config | SeedOptions | dict[str, Any] | Path:
    """Settings, the options of an .ini file, or the name of a task or of another file.

    Of a task that is no name, a dictionary of settings.

    Raises:
        InputError: for anything else.
    """
    if isinstance(task, Config):
        return task
    if isinstance(task, type | Transducer | Worksheet):
        return settings_of(task) or {}
    if not isinstance(task, str | os.PathLike) or not os.fspath(task):
        refuse("task", "a task's name, such as 'addition', its class, a file, or settings", task)
    path = as_path("task", task, "addition.toml")
    own = settings_of(path)
    if own is not None:
        return own
    return load_ini(path) if path.suffix == ".ini" else path


def abc_settings(
    task: SomeTask,
    assignments: Assignments = (),
    lengths: list[int] | None = None,
    **options: Any,
) -> Config:
    """The settings of the whole method. Arguments as for `settings`.

    Args:
        lengths: digits to evaluate, where they are named besides.

    Raises:
        InputError: as `settings`; for an .ini file that names biases, since the method makes its own; and
            where the assignments name other lengths.
    """
    with_options(assignments, evaluation__lengths=lengths)
    source = _source(task)
    if isinstance(source, SeedOptions) and source.load_window:
        raise InputError(f"{task}: LOAD_WINDOW: abc calibrates a bias of its own; use train")
    return settings(task, assignments, **options)


def training_settings(
    task: SomeTask,
    assignments: Assignments = (),
    *,
    bias: CalibratedBias | MatrixBias | SomeRun | None = None,
    self_bias: Path | str | None = None,
    method: SomeMethod | None = None,
    **options: Any,
) -> tuple[Config, CalibratedBias | MatrixBias | None]:
    """The settings of one training, and the bias it is done with.

    The bias is the one given, else the one that belongs to the settings file: an .ini file may name some,
    and beside the config.json of a run lies that of the run. With a bias the `retraining` part counts.

    Args:
        task, assignments, method, options: as for `settings`.
        bias, self_bias: as for `train`.

    Raises:
        InputError: as `settings`, and for a bias that is missing or broken.
    """
    if bias is not None and method is not None:
        raise InputError(
            f"a calibrated bias is a method of its own; leave the method {own_name(method)!r} out"
        )
    source, found, assignments = _source(task), as_bias(bias), as_assignments("set", assignments)
    files = [found] if isinstance(found, Path) else []
    if self_bias is not None:
        files.append(as_path("self_bias", self_bias, "self.t"))
    of_a_run: list[Path] = []
    if found is None and not files:
        if isinstance(source, SeedOptions):
            files = source.window_paths()
        elif isinstance(source, Path) and source.name == CONFIG:
            # Beside it lie what a task and a method are known by, which are no biases.
            parts = {*(consists_of(source) or ())} & {BIAS, MATRICES_FILE}
            of_a_run = [source.parent / name for name in parts]
    given = found is not None or bool(files)
    if not given:
        refuse_second(assignments)
    config = settings(task, assignments, method=method, with_bias=given, **options)
    if files or of_a_run:
        found = read_bias(files or of_a_run, config.task)
    assert not isinstance(found, Path)
    return config.for_retraining() if given else config, found
