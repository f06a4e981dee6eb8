"""Problems and answers without a rule: JSON lines, such as `{"problem": "12+3", "answer": "15"}`.

A model can be trained, calibrated and evaluated on them; a proof needs a rule.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lengthwise.errors import InputError, NoProblemsError, shorten
from lengthwise.files import read_text, sha256
from lengthwise.tasks.transducer import DIGITS, Segment, Transducer

_SPLITS = ("train", "validation", "test")
# A number, or a symbol.
_PIECES = re.compile(r"([0-9a-z]+)|([^0-9a-z])")

# Problems of which no split is said: as many in 16 as of drawn problems (`lengthwise.problems.sampling`).
_SHARES = ("validation", "test")


class Dataset(Transducer):
    """A task of which problems are known, and no rule; its classes are made by `dataset_class`.

    Attributes:
        file: where the problems are.
        file_digest: of its content, as it was when the task was made.
        values: what it was made of.
    """

    file: ClassVar[str]
    file_digest: ClassVar[str]
    values: ClassVar[dict[str, Any]]
    ruled: ClassVar[bool] = False
    settings: ClassVar = {
        "data": {"carry_fraction": 0.0},
        "retraining": {"carry_fraction": 0.0},
        "evaluation": {"suites": ("uniform",)},
    }

    def step(self, state: int, *column: int) -> tuple[int, int]:
        raise NotImplementedError(f"{self.name} has problems and answers, and no rule")

    @property
    def problems(self) -> Problems:
        """Those of the file.

        Raises:
            InputError: where it is not there, or is not what it was.
        """
        return _read(Path(self.file), self.file_digest, self.name)

    def answer(self, operands: np.ndarray) -> np.ndarray:
        """As `Transducer.answer`, looked up.

        Raises:
            InputError: for a problem that the file does not hold.
        """
        known, found = self.problems, np.zeros((len(operands), operands.shape[2]), np.uint8)
        for row, problem in enumerate(operands):
            place = known.places.get(_key(problem))
            if place is None:
                digits = (self.read(one) for one in problem)
                raise InputError(f"{self.file} holds no answer to {', '.join(digits)}")
            answer = known.answers[place]
            found[row, : len(answer)] = answer
        return found

    def draw(
        self, rng: np.random.Generator, count: int, split: str, width: int, lengths: range
    ) -> np.ndarray:
        """Problems of the file, digits `[problem, operand, width]`.

        In training as many as are asked for, with repetition; else different ones, at most all there are.

        Raises:
            NoProblemsError: where the split has none of these lengths.
        """
        known = self.problems
        chosen = np.flatnonzero(np.isin(known.lengths, lengths))
        if split != "any":
            chosen = chosen[known.splits[chosen] == split]
        if not len(chosen):
            least, most = lengths[0], lengths[-1]
            what = f"{least} to {most}" if most > least else f"{least}"
            has = f"{known.lengths.min()} to {known.lengths.max()}"
            raise NoProblemsError(
                f"{self.file} holds no problem of {what} digits for the {split} split; it has {has}"
            )
        again = split == "train"
        picked = rng.choice(chosen, count if again else min(count, len(chosen)), replace=again)
        digits = np.zeros((len(picked), len(self.operands), width), np.uint8)
        held = known.operands[picked][:, :, :width]
        digits[:, :, : held.shape[2]] = held
        return digits


class Problems:
    """The problems of a file.

    Attributes:
        operands: digits `[problem, operand, column]`, least significant first.
        answers: of each its digits, likewise.
        lengths: digits of the longest operand, int64 `[problem]`.
        splits: train, validation or test, `[problem]`.
        places: the number of each problem.
        shape: the segments, from left to right.
        base: least that holds all digits, of 2, 10, 16 and 36.
    """

    def __init__(self, rows: list[tuple[list[str], str, str | None]], shape: list[str]) -> None:
        self.shape = shape
        most = max(DIGITS.index(c) for parts, answer, _ in rows for c in "".join(parts) + answer)
        self.base = next(base for base in (2, 10, 16, 36) if most < base)
        texts = [[part.lstrip("0") or "0" for part in parts] for parts, _, _ in rows]
        self.lengths = np.array([max(map(len, parts)) for parts in texts])
        shape_of = (len(rows), len(texts[0]), int(self.lengths.max()))
        self.operands = np.zeros(shape_of, np.uint8)
        for row, parts in enumerate(texts):
            for index, part in enumerate(parts):
                self.operands[row, index, : len(part)] = [DIGITS.index(c) for c in part[::-1]]
        self.answers = [
            np.array([DIGITS.index(c) for c in (answer.lstrip("0") or "0")[::-1]], np.uint8)
            for _, answer, _ in rows
        ]
        self.places = {_key(problem): place for place, problem in enumerate(self.operands)}
        splits = [
            split or _split_of(key) for key, (_, _, split) in zip(self.places, rows, strict=True)
        ]
        self.splits = np.array(splits, object)

    @property
    def growth(self) -> int:
        """Digits by which an answer is longer than the longest operand, at most."""
        lengths = np.array([len(answer) for answer in self.answers])
        return max(0, int((lengths - self.lengths).max()))


def _key(problem: np.ndarray) -> bytes:
    """The operands of a problem `[operand, column]`, without zeros on the left of all."""
    used = np.flatnonzero(problem.any(axis=0))
    width = used[-1] + 1 if len(used) else 1
    return np.ascontiguousarray(problem[:, :width]).tobytes()


@lru_cache(maxsize=8)
def _read(path: Path, digest: str, name: str) -> Problems:
    text = _text(path)
    if digest and sha256(text.encode())[:16] != digest:
        raise InputError(
            f"{path} is not what it was when {name} was trained; its content has changed"
        )
    return parse_problems(text, path)


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise InputError(
            f"can't read {path}, which holds the problems: {error.strerror}"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def parse_problems(text: str, path: Path) -> Problems:
    """The problems of JSON lines, which are all of one form.

    Raises:
        InputError: with the file and the line, for the first thing that is wrong.
    """
    rows, shape, seen = [], None, dict[tuple[str, ...], tuple[str, int]]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
            given = values["problem"], values["answer"]
            problem, answer = ("".join(str(one).split()).lower() for one in given)
            split = values.get("split")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f'{where}: a line is like {{"problem": "12+3", "answer": "15"}}, got {shorten(line)}'
            ) from error
        if split not in (None, *_SPLITS):
            raise InputError(f"{where}: split is {', '.join(_SPLITS)}, got {split!r}")
        pieces = _PIECES.findall(problem)
        own = [symbol for _, symbol in pieces]
        if shape is None:
            shape = own
            if "" not in own:
                raise InputError(f"{where}: {shorten(problem)!r} has no operand")
        if own != shape:
            raise InputError(f"{where}: {shorten(problem)!r} is of another form than those before")
        if not answer or not set(answer) <= set(DIGITS):
            raise InputError(f"{where}: an answer is digits, 0-9 and a-z, got {shorten(answer)!r}")
        parts = [digits for digits, _ in pieces if digits]
        key, value = tuple(part.lstrip("0") for part in parts), answer.lstrip("0")
        known, first = seen.setdefault(key, (value, number))
        if known != value:
            raise InputError(f"{where}: {shorten(problem)} has another answer in line {first}")
        if first == number:
            rows.append((parts, answer, split))
    if shape is None:
        raise InputError(f"{path} holds no problems")
    symbols = [one for one in shape if one]
    if len(set(symbols)) < len(symbols) or any(s in "^$" for s in symbols):
        raise InputError(f"{path}: symbols of a problem are different ones, none of ^ $")
    return Problems(rows, shape)


def _split_of(key: bytes) -> str:
    """The split of a problem that says none, by its operands alone."""
    bucket = int(sha256(key)[:8], 16) % 16
    return _SHARES[bucket] if bucket < len(_SHARES) else "train"


def dataset_values(path: Path, name: str) -> dict[str, Any]:
    """What `dataset_class` takes, of a file of JSON lines.

    Raises:
        InputError: as `parse_problems`.
    """
    text = _text(path)
    known = parse_problems(text, path)
    train = known.splits == "train"
    if not train.any():
        raise InputError(f"{path} holds no problem to train on; all have another split")
    first = next(iter(np.flatnonzero(train)))
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    segments = [one or next(letters) for one in known.shape]
    texts = (
        "".join(DIGITS[d] for d in part[::-1]).lstrip("0") or "0" for part in known.operands[first]
    )
    answer = "".join(DIGITS[d] for d in known.answers[first][::-1])
    return {
        "name": name,
        "file": str(path.resolve()),
        "digest": sha256(text.encode())[:16],
        "base": known.base,
        "segments": segments,
        "growth": known.growth,
        "length": int(known.lengths[train].max()),
        "lengths": [int(one) for one in np.unique(known.lengths)],
        "example": ["".join(one or next(texts) for one in known.shape), answer],
    }


def dataset_class(values: dict[str, Any]) -> type[Dataset]:
    """The task of a file of problems, of what `dataset_values` found there; it is not read again before it
    is needed.

    Raises:
        ValueError: for values that are none of its.
    """
    try:
        segments = tuple(
            Segment(one, "operand" if one.isalnum() else "symbol") for one in values["segments"]
        )
        lengths = tuple(map(int, values["lengths"]))
        evaluation = {**Dataset.settings["evaluation"], "lengths": lengths}
        made: dict[str, Any] = {
            "name": str(values["name"]),
            "file": str(values["file"]),
            "file_digest": str(values["digest"]),
            "bases": (int(values["base"]),),
            "segments": segments,
            "growth": int(values["growth"]),
            "states": 1,
            "length": int(values["length"]),
            "example": tuple(map(str, values["example"])),
            "settings": {**Dataset.settings, "evaluation": evaluation},
            "values": values,
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no problems are described by {shorten(str(values))}") from error
    return type(made["name"].title().replace("_", ""), (Dataset,), made)
