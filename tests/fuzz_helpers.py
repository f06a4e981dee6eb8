"""A fuzzer without chance: the same seed gives the same inputs. Here are its kinds of input.

A kind has seeds, which are good, and a corpus in `tests/corpus/KIND`, which once did harm: each file of it
is tried as it is, and all are changed into new inputs (`changed`). What reads an input refuses it with an
`InputError` of one short line (where a docstring says so with a plain `ValueError`), or takes it for what
it says.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.bias import CalibratedBias, Track
from lengthwise.cli.options import parse_lengths, parse_sizes
from lengthwise.errors import InputError
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.files import from_toml
from lengthwise.paper_repo import load_ini
from lengthwise.problems.format import Format
from lengthwise.problems.sizes import Size
from lengthwise.problems.worked import worked
from lengthwise.proof import Certificate
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.settings.files import load_config, shipped_configs
from lengthwise.sweeps.grid import load_plan
from lengthwise.tasks import TASKS, WORKSHEETS, machine
from lengthwise.tasks.dataset import dataset_class, dataset_values
from lengthwise.tasks.kept import reopened
from lengthwise.tasks.table import table_class
from sweep_helpers import SMALL_FILE

HERE = Path(__file__).parent
CORPUS, SAMPLES = HERE / "corpus", HERE / "samples"

# The longest message that is one clear line.
LONGEST_MESSAGE = 1500

_NASTY = [
    *("0", "-1", "1", "00", "007", "9" * 9, "9" * 25, "1" * 5000, "1e999", "-0.0", "nan", "inf"),
    *("Infinity", "NaN", "null", "true", "false", "None", "[]", "{}", "[[", "]]", "{{", "[" * 300),
    *('{"a":' * 150, '"', "'", '"""', "\\", "\\ud800", "\\u0000", "#", "=", ",", ":", ";", "\n"),
    *("\r", "\t", " ", "\x00", "\x1b[31m", "\u2028", "\ufeff", "٣", "²", "K", "ß", "é", "🙂"),
    *(
        "../../etc/passwd",
        "/dev/zero",
        "~",
        "$(true)",
        "%s",
        "{0}",
        "__class__",
        "<script>",
        "a.b.c",
    ),
    *("0x10", "1_000", "1.5", "+", "-", "*", "/", "^", "$", "(", ")", "x" * 300, "a." * 200),
]
_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 7, 10**9, 10**30, -(10**30), 0.5, 1e308, float("inf")),
    *(float("nan"), "", "0", "a", "x" * 400, "\ud800", "\x00", "../..", "/dev/zero", [], {}, [[]]),
    *([0], [None], {"a": 1}, [1, "a", None], {"": {}}, [[[[[[[[0]]]]]]]], "addition", [10**12] * 3),
]


def changed(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """An input with one to four changes."""
    for _ in range(rng.randint(1, 4)):
        place = rng.randint(0, len(data))
        end = min(len(data), place + rng.randint(0, 12))
        way = rng.randrange(8)
        if way == 0:
            data = data[:place] + data[end:]
        elif way == 1:
            data = data[:place] + rng.choice(_NASTY).encode("utf-8", "surrogatepass") + data[end:]
        elif way == 2 and data:
            place = min(place, len(data) - 1)
            data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
        elif way == 3:
            data = data[:end] + data[place:]
        elif way == 4:
            other = rng.choice(others)
            data = data[:place] + other[rng.randint(0, len(other)) :]
        elif way == 5 and (found := [*re.finditer(rb"-?\d+(\.\d+)?|\"[^\"\n]*\"", data)]):
            one = rng.choice(found)
            new = rng.choice(_NASTY).encode("utf-8", "surrogatepass")
            data = data[: one.start()] + new + data[one.end() :]
        elif way == 6:
            lines = data.split(b"\n")
            one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[one], lines[two] = lines[two], lines[one]
            data = b"\n".join(lines)
        elif way == 7 and (new := _changed_json(data, rng)) is not None:
            data = new
    return data[:20_000]


def _changed_json(data: bytes, rng: random.Random) -> bytes | None:
    """JSON, or a line of JSON lines, with another value in one place; None where it is none."""
    try:
        values = json.loads(data)
        before, after = b"", b""
    except (ValueError, RecursionError):
        lines = data.split(b"\n")
        number = rng.randrange(len(lines))
        before, after = (b"\n".join(part) for part in (lines[:number], lines[number + 1 :]))
        before, after = before + b"\n" * bool(number), b"\n" * (number + 1 < len(lines)) + after
        try:
            values = json.loads(lines[number])
        except (ValueError, RecursionError):
            return None
    if not isinstance(values, dict | list) or not values:
        return None
    held: Any = values
    while True:
        key = rng.choice([*held]) if isinstance(held, dict) else rng.randrange(len(held))
        inner = held[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            held = inner
            continue
        what = rng.randrange(4)
        if what == 0:
            del held[key]
        elif what == 1 and isinstance(held, dict):
            held["".join(rng.choices(string.ascii_lowercase, k=3))] = held.pop(key)
        else:
            held[key] = rng.choice(_VALUES)
        return before + json.dumps(values).encode("utf-8", "surrogatepass") + after


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        read: what reads it, of bytes, or of a file whose name `name` is.
        seeds: good inputs.
        name: of the file; none for what is read as text.
        share: how many of all inputs are of this kind.
        plain: whether a plain `ValueError` is promised.
    """

    read: Callable[[Any], object]
    seeds: list[bytes]
    name: str = ""
    share: float = 0.01
    plain: bool = False


def try_one(kind: Kind, data: bytes, folder: Path) -> bool:
    """Read one input; whether it was taken.

    Raises:
        Exception: whatever else than a refusal comes of it.
    """
    given: Any
    if kind.name:
        given = folder / kind.name
        given.write_bytes(data)
    else:
        given = data.decode("utf-8", "surrogateescape")
    try:
        kind.read(given)
    except ValueError as error:
        if not kind.plain and not isinstance(error, InputError):
            raise
        said = str(error)
        assert said.strip(), "nothing is said"
        assert kind.plain or len(said) <= LONGEST_MESSAGE, f"{len(said):,} characters: {said[:300]}"
        assert "Traceback" not in said
        return False
    return True


def inputs(kind: Kind, name: str, count: int) -> Iterator[bytes]:
    """What is kept of a kind, then changes of it and of the seeds."""
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    yield from kept
    good = [*kind.seeds, *kept]
    rng = random.Random(f"fuzz {name}")
    for _ in range(count):
        yield changed(rng.choice([*kind.seeds, rng.choice(good)]), good, rng)


# --- what reads, and what must be so of what is taken ---

# Whose answer Python works out, from the text.
_ARITHMETIC = {"addition", "subtraction", "nx1", "multi_addition", "multiplication"}
_FORMATS = {name: Format(name) for name in [*TASKS, *WORKSHEETS]}


def _expression(text: str) -> None:
    """`TASK EXPRESSION`: operands are the text's own, and the answer is Python's."""
    name, _, expression = text.partition(" ")
    format = _FORMATS.get(name) or _FORMATS["addition"]
    parts = iter(format.task.parse(expression))
    written = "".join(expression.split())
    for segment in format.task.segments if name in TASKS else ():
        own = segment.text if segment.kind == "symbol" else next(parts)
        assert written[: len(own)].lower() == own.lower(), (text, own)
        written = written[len(own) :]
    assert name not in TASKS or not written
    plain = "".join(expression.split())
    if format.name in _ARITHMETIC and len(plain) <= 60:
        assert re.fullmatch(r"[0-9]+([-+*][0-9]+)*", plain), plain
        whole = re.sub(r"\b0+(?=\d)", "", plain)
        assert worked(format, expression).answer == str(eval(whole)), plain


def _assignment(text: str) -> None:
    key, _, value = text.partition("=")
    config = make_config({}, [text])
    if re.fullmatch(r"[1-9][0-9]{0,8}", value.strip()) and key.strip() in ("seed", "data.length"):
        name = key.strip()
        assert (config.seed if name == "seed" else config.data.length) == int(value)


def _settings(path: Path) -> None:
    config = make_config(load_config(path))
    again = make_config(json.loads(config.model_dump_json()))
    assert again == config


def _bias(path: Path) -> None:
    bias = CalibratedBias.load(path)
    bias.save(path)
    assert CalibratedBias.load(path) == bias


def _track(text: str) -> None:
    assert Track.parse(str(Track.parse(text))) == Track.parse(text)


def _size(text: str) -> None:
    size = Size.parse(text)
    assert Size.parse(str(size)) == size


def _lists(text: str) -> None:
    if "x" in text:
        parse_sizes(text)
    else:
        assert all(1 <= length < 10**9 for length in parse_lengths(text) or [1])


def _problems(path: Path) -> None:
    values = dataset_values(path, "problems")
    dataset_class(json.loads(json.dumps(values)))


def _table(text: str) -> None:
    kind = table_class(from_toml(text), "mine")
    task: Any = kind()
    for state in range(task.states):
        for digit in range(task.base):
            after, written = task.step(state, *[digit] * len(task.operands))
            assert 0 <= after < task.states
            assert 0 <= written < task.base


def _kept(path: Path) -> None:
    for name in ("times_three", "binary"):
        reopened(path.parent, name)


def _metrics(path: Path) -> None:
    from lengthwise.runs.metrics import read_metrics

    read_metrics(Run(path.parent, make_config({}), None))  # type: ignore[arg-type]


def _row(path: Path) -> None:
    LengthCurve.load(path).most_careful()


_TABLE = b"""name = "times_three"
digits = "01"
segments = ["a"]
growth = 2
example = ["101", "1111"]
transitions.carry0 = { 0 = "0 carry0", 1 = "1 carry1" }
transitions.carry1 = { 0 = "1 carry0", 1 = "0 carry2" }
transitions.carry2 = { 0 = "0 carry1", 1 = "1 carry2" }
"""
_SCORE = {
    **{"task": "addition", "base": 10, "method": "calibrated", "seed": 0, "problem_seed": 0},
    **{"suite": "uniform", "length": 6, "width": 7, "split": "test", "n": 10, "correct": 9},
    **{"low": 0.5, "high": 1.0, "worst_loss": 0.1, "seconds": 1.0, "model": "00"},
}


def _all_seeds(*names: str) -> list[bytes]:
    return [path.read_bytes() for name in names for path in sorted(SAMPLES.glob(f"*/{name}"))]


def _ini() -> bytes:
    from seed_helpers import INI

    text = INI.format(
        **{"mode": "CNT", "fixed_len": 8, "max_num": "1024*1024", "batch_size": 64},
        **{"emb_size": 32, "nhead": 4, "layers": 2, "half": 1},
    )
    return text.encode()


def _expressions() -> list[bytes]:
    return [
        f"{name} {example}".encode()
        for name, format in _FORMATS.items()
        for example in (format.task.example[0],)
    ]


KINDS = {
    "expression": Kind(_expression, _expressions(), share=0.66),
    "track": Kind(
        _track,
        [b"a[c]", b"answer[c-1]", b"b[c+2]", b"sheet[r-1,c+1].carry", b"+", b"a[2*r-c+7]"],
        share=0.1,
        plain=True,
    ),
    "size": Kind(_size, [b"20x15", b"20", b" 3X4 "], share=0.03, plain=True),
    "list": Kind(_lists, [b"6,60,1000", b"1-60", b"20x20,1000x3", b"7, 9 - 12"], share=0.04),
    "assignment": Kind(
        _assignment,
        [
            *(b"seed=3", b"data.length=7", b"training.learning_rate=1e-3", b"task=addition"),
            *(b"model.bias=alibi", b"evaluation.lengths=[6, 60]", b"model.layers = 3"),
            *(b"base=2", b"data.drill=['1+2']", b"calibration.policy=paper", b"device=cpu"),
        ],
        share=0.04,
    ),
    "toml": Kind(
        _settings,
        [path.read_bytes() for path in shipped_configs().values()],
        "settings.toml",
        share=0.02,
    ),
    "json": Kind(_settings, _all_seeds("config.json"), "config.json", share=0.02),
    "ini": Kind(load_ini, [_ini()], "settings.ini", share=0.02),
    "bias": Kind(_bias, _all_seeds("bias.jsonl"), "bias.jsonl", share=0.015),
    "certificate": Kind(
        Certificate.load, _all_seeds("certificate.json"), "certificate.json", share=0.015
    ),
    "table": Kind(_table, [_TABLE], share=0.01, plain=True),
    "machine": Kind(
        machine.read_machine,
        [text.encode() for text in machine.shipped().values()],
        share=0.01,
        plain=True,
    ),
    "sweep": Kind(load_plan, [SMALL_FILE.encode()], "sweep.toml", share=0.005),
    "problems": Kind(
        _problems,
        [
            b'{"problem": "12+3", "answer": "15"}\n{"problem": "7+3", "answer": "10"}\n',
            b'{"problem": "101", "answer": "1", "split": "train"}\n',
        ],
        "problems.jsonl",
        share=0.01,
    ),
    "kept": Kind(
        _kept,
        [
            json.dumps({"name": "times_three", "table": {
                "name": "times_three", "digits": "01", "segments": ["a"], "growth": 2,
                "example": ["101", "1111"], "transitions": {
                    "x": {"0": "0 x", "1": "1 y"}, "y": {"0": "1 x", "1": "0 y"}}},
                "parameters": {}}).encode(),
            json.dumps({"name": "other", "class": "Other", "rule": "00", "source": "00"}).encode(),
            json.dumps({"name": "binary", "problems": {
                "name": "binary", "file": "/tmp/x.jsonl", "digest": "0", "base": 2,
                "segments": ["a"], "growth": 0, "length": 3, "lengths": [1, 2], "example": ["1", "1"],
            }}).encode(),
        ],
        "task.json",
        share=0.01,
    ),
    "metrics": Kind(
        _metrics,
        [
            b'{"step": 20, "loss": 1.0, "validation_loss": 1.0, "worst_loss": 2.0, "exact_match": 0.5,'
            b' "learning_rate": 0.001, "seconds": 1.0, "tokens_per_second": 9.0, "phase": "stable"}\n'
        ],
        "metrics.jsonl",
    ),
    "results": Kind(_row, [json.dumps([_SCORE]).encode()], "results.json"),
}  # fmt: skip
