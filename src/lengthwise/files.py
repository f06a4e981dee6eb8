"""Files that appear whole or not at all, and text as people save it."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError

from lengthwise.errors import shorten

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# Bytes of a text that is read at once, and of one that a person writes; more has another purpose than ours.
MOST_TEXT, MOST_SETTINGS = 256 << 20, 8 << 20

# How deep tables may lie in each other. Ours need a handful of levels.
_DEEPEST = 64

# A key of TOML with so many dots takes the parser time that grows with their square.
_LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}""")

UTF8_MARK = b"\xef\xbb\xbf"
# UTF-32's little-endian mark begins with that of UTF-16.
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def sha256(data: bytes) -> str:
    """The hash of some bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in its place at once.

    Whatever happens before that, a file already at `path` stays as it is and the temporary file goes.

    Raises:
        OSError: when it can't be written, naming `path`; also where the library that writes it has an
            error of its own for that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        temporary.touch(exist_ok=False)
        try:
            allowed = stat.S_IMODE(temporary.stat().st_mode)
            write(temporary)
            if stat.S_IMODE(temporary.stat().st_mode) != allowed:
                # safetensors puts a file of its own there, which nobody else may read.
                temporary.chmod(allowed)
            # For writing: on Windows nothing else can be flushed to the disk.
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of writing, whoever raises them, as an OSError that names the file a person knows."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"can't write {path}: {reason(error)}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    except (RuntimeError, SafetensorError) as error:  # what torch and safetensors raise
        # They do not always say that the disk is full.
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"can't write {path}: {reason(error)} ({free / 2**20:,.0f} MiB are free there)"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes; the file appears whole or not at all."""
    write_with(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; the file appears whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def save_tensors(
    path: Path, tensors: Mapping[Any, Tensor], about: dict[str, str] | None = None
) -> None:
    """Write safetensors, with what is to be said about them; the file appears whole or not at all."""
    from safetensors.torch import save_file  # brings torch, for which a help text would wait

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_with(path, lambda temporary: save_file(contiguous, temporary, about))


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows of a table; the file appears whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def append_text(path: Path, text: str) -> None:
    """Add UTF-8 text to the end of a file, which appears if it is not there.

    Raises:
        OSError: when it can't be written, naming `path`.
    """
    with _naming(path), path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)


def read_bytes(path: Path | str, most: int = MOST_TEXT) -> bytes:
    """The content of a file, whatever it says of its size: no more than so many bytes are read.

    Raises:
        OSError: when it can't be read.
        ValueError: in a few words that fit behind the file's name, when it is larger, or a pipe that lies
            about as a file would (reading one waits for ever).
    """
    path = Path(path)
    if stat.S_ISFIFO(path.stat().st_mode) and not path.is_relative_to("/dev"):
        raise ValueError("it is a pipe, not a file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if size > most else file.read(most + 1)
    if max(size, len(data)) > most:
        raise ValueError(f"it has more than {most >> 20} MiB; such a file is not read")
    return data


def read_text(path: Path | str, most: int = MOST_TEXT) -> str:
    """The text of a file that a person may have saved: UTF-8, with or without a byte order mark.

    Lines end in `\\n`, however they ended in the file.

    Args:
        most: bytes; a larger file is refused before it is read.

    Raises:
        OSError: when it can't be read.
        ValueError: in a few words that fit behind the file's name, when it is saved in another encoding, or
            as `read_bytes`.
    """
    data = read_bytes(path, most)
    check_encoding(data)
    try:
        text = data.removeprefix(UTF8_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 text; save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_encoding(data: bytes) -> None:
    """Refuse the beginning of a text that is in UTF-16 or UTF-32.

    Raises:
        ValueError: when it is, in a few words that fit behind the file's name.
    """
    if data.startswith(_OTHER_MARKS) or b"\0" in data:
        raise ValueError("it is not UTF-8 text, but UTF-16 or no text at all; save it as UTF-8")


def from_json(text: str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: for what is no JSON, or nested so deeply that nobody could walk through it.
    """
    return _parsed(json.loads, text)


def from_toml(text: str) -> dict[str, Any]:
    """What a TOML text says.

    Raises:
        ValueError: as `from_json`.
    """
    if _LONG_KEY.search(text):
        raise ValueError(_TOO_DEEP)
    return _parsed(tomllib.loads, text)


_TOO_DEEP = f"it is nested more than {_DEEPEST} levels deep"


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    """What a parser reads, if it is not nested too deeply."""
    try:
        values = parse(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [values] if isinstance(values, dict | list) else []
    for _ in range(_DEEPEST):
        if not level:
            return values
        level = [
            inner
            for held in level
            for inner in (held.values() if isinstance(held, dict) else held)
            if isinstance(inner, dict | list)
        ]
    raise ValueError(_TOO_DEEP)


def check_format(found: object, wanted: str) -> None:
    """Refuse a file of another format, such as `lengthwise-bias/2` where `lengthwise-bias/1` is read.

    Raises:
        ValueError: when it is, in words that fit behind the file's name.
    """
    if found == wanted:
        return
    kind, _, number = wanted.rpartition("/")
    given, _, other = str(found).rpartition("/")
    if given != kind or not other.isdecimal():
        raise ValueError(f"its format is {found!r}, not {wanted!r}")
    advice = "a newer lengthwise wrote it; install that"
    if int(other) <= int(number):
        advice = "an older one wrote it; make it again"
    raise ValueError(f"its format is {found!r}, this lengthwise reads {wanted!r}: {advice}")


# Types of fields, as they are written, and those of JSON values that they take.
_TYPES = {"int": (int,), "float": (int, float), "str": (str,)}


def from_row(kind: type[T], row: Any) -> T:
    """A dataclass from a row of a file that may have been written by a newer version.

    Raises:
        TypeError, ValueError: when it is no such row, in words that fit behind the file's name.
    """
    known = getattr(kind, "__dataclass_fields__", {})
    for name in known.keys() & (row.keys() if isinstance(row, dict) else set()):
        wanted = _TYPES.get(known[name].type, ())
        if wanted and type(row[name]) not in wanted:
            raise ValueError(f"{name} can't be {shorten(repr(row[name]))}")
    if isinstance(row, dict) and (others := sorted(row.keys() - known.keys())):
        raise ValueError(
            f"{others[0]!r} is unknown to this lengthwise; a newer one may have written it"
        )
    return kind(**row)


def reason(error: Exception) -> str:
    """The first line of an error's message, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
