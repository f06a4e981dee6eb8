"""Settings files: TOML of ours, and the config.json of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lengthwise.errors import InputError
from lengthwise.files import MOST_SETTINGS, from_json, from_toml, read_text
from lengthwise.settings.config import Config
from lengthwise.settings.parameters import TABLE, content, gather
from lengthwise.tasks import find_task, register
from lengthwise.tasks.kept import reopened

# The part of a run's config.json that names its other files.
FILES = "files"


def shipped_configs() -> dict[str, Path]:
    """The settings files that come with the package, by name."""
    # In a checkout they lie at its top, where a person looks for them.
    package = Path(__file__).parents[1]
    places = package / "configs", package.parents[1] / "configs"
    folder = next((place for place in places if place.is_dir()), places[0])
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_config(path: Path) -> dict[str, Any]:
    """The settings of a TOML file (ours) or of a run's config.json, as nested values.

    A task that is not known is the one that the run's folder keeps, as far as that needs no code.
    Parameters lie in their table, wherever the file has them. A TOML file may name files that hold texts of
    them, beside it or from the working folder; a run's own settings hold the texts.

    Raises:
        InputError: when the file, or one that it names, can't be read or parsed.
    """
    values = load_values(path)
    values.pop(FILES, None)
    name = values.get("task")
    if path.suffix == ".json" and isinstance(name, str) and find_task(name) is None:
        kept = reopened(path.parent, name)
        if kept is not None:
            register(kept)
    try:
        values = gather(values, Config.model_fields)
        table = values.get(TABLE)
        if isinstance(table, dict) and path.suffix != ".json":
            folders = path.parent, Path()
            values[TABLE] = {name: content(name, held, *folders) for name, held in table.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return values


def load_values(path: Path) -> dict[str, Any]:
    """All that a settings file holds: of a run, besides the settings, the files that belong to it.

    Raises:
        InputError: when the file can't be read or parsed.
    """
    try:
        text = read_text(path, MOST_SETTINGS)
        values = from_json(text) if path.suffix == ".json" else from_toml(text)
        if not isinstance(values, dict):
            raise ValueError(f"settings are a table of keys and values, got {values!r}")
        return values
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not a settings file: {error}") from error
