"""What a sweep consists of: a file, or tables from Python, made a list of cells, each with its settings.

```toml
[grid]                       # every combination of these is a cell
task = ["successor", "addition"]
method = ["vanilla", "rope", "abc"]
seed = [0, 1, 2]
"model.width" = [64, 128]

[settings]                   # of all cells
"training.max_steps" = 6000

[[case]]                     # settings that go together; every cell is of one case
name = "base"

[[case]]
name = "deep"                # what a case sets takes the place of the grid's list
"model.layers" = 4
"model.width" = 64
```
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.arguments import as_assignments, as_choice, as_flag, as_text, as_whole, refuse
from lengthwise.errors import InputError, shorten
from lengthwise.files import MOST_SETTINGS, from_toml, read_text, sha256
from lengthwise.own_code import names_code
from lengthwise.pipeline import check_local
from lengthwise.settings.assignments import refuse_idle
from lengthwise.settings.config import Config, make_config
from lengthwise.settings.methods import METHODS
from lengthwise.settings.own_methods import chosen_method, own_source
from lengthwise.tasks import is_own
from lengthwise.tasks.given import settings_of
from lengthwise.tasks.own import rule_digest

# The method whose cells are the whole pipeline; the others train and evaluate one model.
ABC = "abc"

_TABLES = ("grid", "settings", "case", "prove", "stages")

# In names of cells these stand first, in this order; then the others by the alphabet.
_FIRST = ("case", "task", "method", "seed")

# Axes that are no settings of a model.
_NO_SETTINGS = ("case", "task", "method")

# More than a sweep can be watched with.
_MOST = 1_000_000

# Characters of a folder's name that every file system takes, and how many; longer ones are cut.
_ODD, _LONGEST = re.compile(r"[^A-Za-z0-9.+_=,-]"), 120

# Settings that say how a model is computed, never what comes out.
_HOW = ("device", "attention", "decode")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: its folder, made of what tells it from the others, as `task=addition,seed=0`.
        axes: what tells it from the others: `case`, and each key of the grid.
        method: `abc`, or a name in `lengthwise.settings.methods.METHODS`.
        config: its settings.
        given: those of them that were set, as JSON values.
        hash: of those, and of the method: cells of two sweeps with the same are the same.
        files: of a `task` or a `method` of a user's own, which workers read.
    """

    name: str
    axes: dict[str, Any]
    method: str
    config: Config
    given: dict[str, Any]
    hash: str
    files: dict[str, str]

    @property
    def alike(self) -> str:
        """Cells for which it is the same take about as long as each other."""
        others = [f"{key}={_word(value)}" for key, value in self.axes.items() if key != "seed"]
        return ",".join([self.config.task, self.method, *others])


@dataclass(frozen=True)
class Plan:
    """All cells of a sweep.

    Attributes:
        cells: at least one.
        prove: whether `abc` proves its models where a proof applies.
        stages: whether each stage of `abc` is a job of its own.
        source: the tables that it was made of, as JSON values.
    """

    cells: list[Cell]
    prove: bool
    stages: bool
    source: dict[str, Any]

    @property
    def axes(self) -> list[str]:
        """The keys that tell cells from each other, in the order of their names."""
        return _ordered({key for cell in self.cells for key in cell.axes})


def load_plan(path: Path) -> Plan:
    """The plan of a TOML file.

    Raises:
        InputError: in one line that begins with the file's name, for the first thing that is wrong.
    """
    try:
        tables = from_toml(read_text(path, MOST_SETTINGS))
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not a file of a sweep: {error}") from error
    try:
        return make_plan(tables)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def make_plan(tables: Mapping[str, Any]) -> Plan:
    """The plan of tables, as `load_plan` reads them.

    Args:
        tables: `grid`, `settings`, `case` (a list of tables), whether to `prove` (by default) and
            whether to make `stages` of `abc` jobs of their own (by default not).

    Raises:
        InputError: for an unknown table or setting, a value that is not allowed, a list that is none or is
            empty, cases without names or of the same, two cells of the same settings.
    """
    for key in tables:
        as_choice("table", str(key), _TABLES)
    grid = _grid(tables.get("grid", {}))
    common = _flat("settings", tables.get("settings", {}))
    cases = _cases(tables.get("case", []))
    if not grid and not cases:
        raise InputError("a sweep needs a [grid] with a list, such as seed = [0, 1], or a [[case]]")
    both = sorted(common.keys() & grid.keys())
    if both:
        raise InputError(f"{both[0]!r} is in [grid] and in [settings]; leave one of them out")
    count = sum(
        math.prod(len(v) for key, v in grid.items() if key not in case) for case in cases or [{}]
    )
    if count > _MOST:
        raise InputError(f"a sweep has at most {_MOST:,} cells, this one {count:,}")
    cells = []
    for case in cases or [{}]:
        own = {key: value for key, value in case.items() if key != "name"}
        axes = {key: values for key, values in grid.items() if key not in own}
        for chosen in itertools.product(*axes.values()):
            point = {**({"case": case["name"]} if case else {}), **own}
            point |= dict(zip(axes, chosen, strict=True))
            named = {k: v for k, v in point.items() if k in grid or k == "case"}
            cells.append(_cell(named, common, point))
    _check_apart(cells)
    prove = as_flag("prove", tables.get("prove", True))
    stages = as_flag("stages", tables.get("stages", False))
    source = {"grid": grid, "settings": common, "case": cases, "prove": prove, "stages": stages}
    return Plan(cells, prove, stages, source)


def _grid(table: Any) -> dict[str, list[Any]]:
    """The lists of the grid, by the dotted names of their settings."""
    if not isinstance(table, Mapping):
        refuse("[grid]", "keys, each with a list, such as seed = [0, 1]", table)
    found: dict[str, list[Any]] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": held for inner, held in _grid(value).items()}
            continue
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            refuse(f"[grid] {key}", "a list of values, such as [0, 1]", value)
        values = [one.item() if hasattr(one, "item") else one for one in value]
        if key in ("task", "method"):
            values = [str(one) if isinstance(one, Path) else one for one in values]
            for one in values:
                if not isinstance(one, str):
                    what = f"names, or files such as my_{key}.py, which every worker reads"
                    refuse(f"[grid] {key}", what, one)
        if not values:
            raise InputError(f"[grid] {key} is empty; give it at least one value")
        for number, one in enumerate(values):
            if any(one == other and type(one) is type(other) for other in values[:number]):
                raise InputError(f"[grid] {key} has {one!r} twice")
        if key in ("case", "name"):
            raise InputError(f"[grid] can't have {key!r}; cases are [[case]] tables")
        found[str(key)] = values
    return found


def _cases(tables: Any) -> list[dict[str, Any]]:
    """The cases, each with its name and its settings by their dotted names."""
    if not isinstance(tables, list | tuple) or not all(isinstance(t, Mapping) for t in tables):
        refuse("[[case]]", "tables, each with a name", tables)
    found: list[dict[str, Any]] = []
    for number, table in enumerate(tables, start=1):
        if not isinstance(table.get("name"), str) or not table["name"]:
            raise InputError(f"[[case]] {number} has no name; give it one, such as name = 'wide'")
        if any(case["name"] == table["name"] for case in found):
            raise InputError(f"two cases are named {table['name']!r}; give them names that differ")
        found.append(_flat(f"case {table['name']!r}", table))
    return found


def _flat(name: str, table: Any) -> dict[str, Any]:
    """Settings by their dotted names."""
    if not isinstance(table, Mapping):
        refuse(f"[{name}]", "settings, such as 'training.max_steps' = 6000", table)
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{k}": v for k, v in _flat(name, value).items()}
        else:
            found[str(key)] = value
    return found


def _cell(named: dict[str, Any], common: dict[str, Any], point: dict[str, Any]) -> Cell:
    """A cell with its settings.

    Args:
        named: what tells it from the others.
        common: settings of all cells.
        point: those of this one, which count more.
    """
    axes = {key: named[key] for key in _ordered(named)}
    name = name_of(axes)
    try:
        values = {**common, **point}
        method = as_text("method", values.get("method", "vanilla"), "rope")
        if not names_code(method):
            as_choice("method", method, (*METHODS, ABC))
        task = as_text("task", values.get("task", Config().task), "addition")
        files = {}
        if names_code(method):
            files["method"] = str(Path(method).expanduser().absolute())
        if (of_file := settings_of(task)) is not None:
            files["task"] = str(Path(task).expanduser().absolute())
        if "seed" in values:
            as_whole("seed", values["seed"])
        own = as_assignments("set", {k: v for k, v in point.items() if k not in _NO_SETTINGS})
        shared = {k: v for k, v in common.items() if k not in (*_NO_SETTINGS, *point)}
        first = [] if method == ABC else chosen_method(method)
        config = make_config(
            of_file or {"task": task}, [*first, *as_assignments("set", shared), *own]
        )
        refuse_idle(config, own)
        if method == ABC:
            check_local(config)
    except InputError as error:
        raise InputError(f"cell {shorten(name, 100)}: {error}") from error
    given = config.model_dump(mode="json", exclude_unset=True)
    return Cell(name, axes, method, config, given, hash_of(method, given, code_of(config)), files)


def code_of(config: Config) -> list[str]:
    """What tells a task and a method of a user's own from later ones of the same name; of ours nothing."""
    rule = [rule_digest(config.make_task())] if is_own(config.task) else []
    code = own_source(config.model.positions, config.model.bias, of_files=True)
    return rule if code is None else [*rule, sha256(code.encode())]


def hash_of(method: str, given: Mapping[str, Any], code: list[str]) -> str:
    """That of a cell's method and of the settings that were given, but for how it is computed.

    Args:
        method, given: of the cell.
        code: from `code_of`.
    """
    kept = {key: value for key, value in given.items() if key not in _HOW}
    return sha256(json.dumps([method, kept, *code], sort_keys=True).encode())[:16]


def name_of(axes: Mapping[str, Any]) -> str:
    """The name of a cell: a folder's, that stays the same when the sweep grows."""
    plain = ",".join(f"{key}={_word(value)}" for key, value in axes.items())
    name = _ODD.sub("_", plain)
    if name != plain or len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 9]}-{sha256(json.dumps(axes, sort_keys=True).encode())[:8]}"
    return name


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "+".join(map(_word, value))
    return str(value)


def _ordered(keys: Iterable[str]) -> list[str]:
    return sorted(keys, key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), key))


def _check_apart(cells: list[Cell]) -> None:
    """Refuse two cells that are the same."""
    names: dict[str, Cell] = {}
    settings: dict[str, Cell] = {}
    for cell in cells:
        if cell.name.lower() in names:
            raise InputError(f"two cells are named {cell.name}; each needs a name of its own")
        names[cell.name.lower()] = cell
        whole = sha256(f"{cell.method == ABC} {cell.config.model_dump_json()}".encode())
        if whole in settings:
            other = settings[whole]
            raise InputError(
                f"cells {shorten(other.name, 100)} and {shorten(cell.name, 100)} have the same settings; "
                f"what tells them apart is set by something else"
            )
        settings[whole] = cell
