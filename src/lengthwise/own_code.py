"""Classes of a user's own: from a file that they name, or from a package that they installed.

Code is run only when a person names its file, or installed the package that declares it. Nothing here reads
a run folder.
"""

from __future__ import annotations

import inspect
import linecache
import re
import sys
import traceback
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from lengthwise.errors import InputError, shorten, unknown
from lengthwise.files import read_text, sha256

# Modules of files that were loaded, by path and content: one that has not changed is not run again.
_LOADED: dict[tuple[Path, str], ModuleType] = {}

_CODE = re.compile(r"(?P<path>.+\.py)(?::(?P<name>[^:/\\]*))?")


def names_code(given: object) -> bool:
    """Whether a text is `my_task.py` or `my_task.py:Class`."""
    return _CODE.fullmatch(str(given)) is not None


def load_class(given: str | Path, bases: tuple[type, ...], what: str) -> type:
    """The class of a file of Python code, which is run.

    Args:
        given: `my_task.py`, which defines one such class, or `my_task.py:Class`.
        bases: what it inherits from, one of these.
        what: what it is, as messages say it, such as `task`.

    Raises:
        InputError: in one sentence with the file, and the line where there is one: for a file that can't be
            read or run, one without such a class or with several, and a class of another kind.
    """
    match = _CODE.fullmatch(str(given))
    if match is None:
        raise InputError(f"a {what} of your own is a file such as my_{what}.py, got {given!s}")
    path, name = Path(match["path"]).expanduser(), match["name"]
    module = _run(path)
    inherits = " or ".join(f"lengthwise.{base.__name__}" for base in bases)
    if name:
        found = getattr(module, name, None)
        if found is None:
            known = [key for key, value in vars(module).items() if isinstance(value, type)]
            raise InputError(f"{path}: {unknown('class', name, known)}")
        check_class(found, bases, what, f"{path}:{name}")
        return found
    # Its own, and not those that it imports.
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    fitting = [one for one in own if issubclass(one, bases) and not inspect.isabstract(one)]
    # Of a class and those that it is made from, the last one is meant.
    fitting = [one for one in fitting if not any(one in other.__mro__[1:] for other in fitting)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(one.__name__ for one in fitting)
        raise InputError(
            f"{path} defines several: {names}; name one, such as {path}:{fitting[0].__name__}"
        )
    for one in own:
        if issubclass(one, bases):  # an abstract one: say what it lacks
            check_class(one, bases, what, f"{path}:{one.__name__}")
    raise InputError(f"{path} defines no {what}: a class that inherits from {inherits}")


def check_class(found: object, bases: tuple[type, ...], what: str, named: str) -> None:
    """Refuse what is no class of these kinds, or lacks one of its methods (`InputError`)."""
    inherits = " or ".join(f"lengthwise.{base.__name__}" for base in bases)
    if not isinstance(found, type) or not issubclass(found, bases):
        shown = "a class" if isinstance(found, type) else f"a {type(found).__name__}"
        raise InputError(f"{named} is {shown}, not a {what}: it inherits from {inherits}")
    lacking = sorted(getattr(found, "__abstractmethods__", ()))
    if lacking:
        raise InputError(f"{named} lacks {', '.join(lacking)}, which every {what} defines")


def _run(path: Path) -> ModuleType:
    """The module of a file, run once; modules beside it can be imported."""
    try:
        text = read_text(path)
        place = path.resolve()
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    key = place, sha256(text.encode())
    if key in _LOADED:
        return _LOADED[key]
    # Unlike any other module: two files of one name are two modules, and so is a changed one.
    name = f"_own_{re.sub(r'[^a-zA-Z0-9_]', '_', path.stem)}_{key[1][:12]}"
    linecache.checkcache(str(place))
    module = ModuleType(name)
    module.__file__ = str(place)
    sys.modules[name] = module
    sys.path.insert(0, str(place.parent))
    try:
        exec(compile(text, str(place), "exec"), vars(module))
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # whatever a file may raise, the end of the program included
        sys.modules.pop(name, None)
        raise InputError(told(error, path)) from error
    finally:
        sys.path.remove(str(place.parent))
    _LOADED[key] = module
    return module


def told(error: BaseException, path: Path | None = None) -> str:
    """An error of a user's code in one sentence: file, line and what went wrong.

    Args:
        error: what was raised.
        path: the file, as it was named; by default the last file of a user's that the error passed through.
    """
    what = shorten(" ".join(f"{type(error).__name__}: {error}".rstrip(": ").split()), 200)
    if isinstance(error, SyntaxError):
        where = path or Path(error.filename or "?")
        # Of a module that it imports, that one is to blame.
        if path is not None and error.filename and Path(error.filename).name != path.name:
            where = Path(error.filename)
        return f"{where}, line {error.lineno}: {shorten(error.msg, 200)}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if path and Path(frame.filename).name == path.name]
    if path is None:
        own = [frame for frame in frames if _is_own(frame.filename)]
    if not own:
        return what if path is None else f"{path}: {what}"
    return f"{path or own[-1].filename}, line {own[-1].lineno}: {what}"


def own_error(error: BaseException) -> str | None:
    """As `told`, of an error that passed through a file that was loaded; None for any other."""
    files = {str(place) for place, _ in _LOADED}
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename in files]
    return told(error, Path(own[-1].filename)) if own else None


def _is_own(filename: str) -> bool:
    """Whether a file is neither of the package nor of what it stands on."""
    inside = Path(__file__).parent
    if filename.startswith("<frozen") or "site-packages" in filename:
        return False
    if Path(sys.base_prefix) in Path(filename).parents:
        return False
    return inside not in Path(filename).parents


def from_packages(group: str) -> dict[str, metadata.EntryPoint]:
    """What installed packages declare in an entry-point group, by name; nothing is imported."""
    return {point.name: point for point in metadata.entry_points(group=group)}


def load_from_package(point: metadata.EntryPoint, bases: tuple[type, ...], what: str) -> type:
    """The class that an installed package declares.

    Raises:
        InputError: where it can't be imported, or is another kind of class.
    """
    package = point.dist.name if point.dist else point.value
    named = f"{what} {point.name!r} of the package {package} ({point.value})"
    try:
        found: Any = point.load()
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        raise InputError(f"{named} can't be imported: {told(error)}") from error
    check_class(found, bases, what, named)
    return found


def from_file(kind: type) -> bool:
    """Whether a class comes from a file that was named."""
    return sys.modules.get(kind.__module__) in _LOADED.values()


def source_of(kind: type) -> str | None:
    """The code that defines a class: the whole file that was named, or of a notebook its cell's class."""
    module = sys.modules.get(kind.__module__)
    for (place, _), loaded in _LOADED.items():
        if loaded is module:
            return "".join(linecache.getlines(str(place)))
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return None
