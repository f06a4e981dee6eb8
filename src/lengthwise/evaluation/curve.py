"""Scores: exact match by length, with intervals; the rows of results.csv and results.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.arguments import as_folder, as_path, refuse
from lengthwise.errors import library
from lengthwise.files import from_json, from_row, read_text, write_csv, write_text
from lengthwise.runs.folder import RESULTS_CSV, RESULTS_JSON
from lengthwise.settings.config import InputError
from lengthwise.settings.sections import Padding

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Score:
    """One row of results.

    Attributes:
        task, base: the task.
        method: `calibrated`, a name in `lengthwise.settings.methods.METHODS`, or `custom`.
        seed: of the run.
        problem_seed: of the test problems.
        suite: `uniform` or `carry`, of sheets `uniform` or `hard`.
        length: digits of every operand.
        width: digits they were padded to; the token length follows it.
        split: `test`: no problem is in training; `any` where the test split holds none this short.
        n, correct: problems, and those answered right.
        low, high: 95 % Wilson interval of the share.
        worst_loss: the largest loss of a symbol that was read, nats: how near to an error the model
            came. A problem that is wrong early is not read to its end.
        seconds: of evaluation.
        model: tells the weights, their bias and settings from all others (`Run.fingerprint`); empty in
            results of version 0.1.
        padding: `answer`, or `training` where the training width is more than the answer needs.
        decoding: `greedy`, of which every symbol is judged.
        rows: of sheets digits of the operands along rows, `length` being those along columns; else 0.
    """

    task: str
    base: int
    method: str
    seed: int
    problem_seed: int
    suite: str
    length: int
    width: int
    split: str
    n: int
    correct: int
    low: float
    high: float
    worst_loss: float
    seconds: float
    model: str = ""
    padding: Padding = "answer"
    decoding: str = "greedy"
    rows: int = 0

    @property
    def size(self) -> str:
        """Digits of the operands, as people write it."""
        return f"{self.length}x{self.rows}" if self.rows else str(self.length)

    @property
    def extent(self) -> tuple[int, int, int]:
        """What scores are sorted by: cells, or digits, then columns and rows."""
        return self.length * max(1, self.rows), self.length, self.rows

    @property
    def key(self) -> tuple:
        """All that defines the measurement, apart from its outcome."""
        outcome = {"correct", "low", "high", "worst_loss", "seconds"}
        return tuple(value for name, value in vars(self).items() if name not in outcome)

    @property
    def question(self) -> tuple:
        """What is asked, however carefully it was measured."""
        return (
            *(self.task, self.base, self.method, self.seed),
            *(self.suite, self.length, self.rows, self.padding, self.decoding),
        )

    @property
    def accuracy(self) -> float:
        """Share of problems answered right."""
        return self.correct / self.n

    @property
    def digits_per_second(self) -> float:
        """Digits of answers judged in a second: problems drawn, answered truly, and read by the model."""
        return self.n * self.length * max(1, self.rows) / max(self.seconds, 1e-3)


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The Wilson score interval of a share, 95 %."""
    z = 1.959964
    share, spread = correct / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # Where all or none are right the bound is exact; keep rounding from crossing it.
    low = 0.0 if correct == 0 else middle - half
    high = 1.0 if correct == n else middle + half
    return low, high


class LengthCurve:
    """Accuracy against length; a list of `Score`."""

    def __init__(self, scores: Iterable[Score]) -> None:
        self.scores = list(scores)
        if not all(isinstance(score, Score) for score in self.scores):
            refuse("scores", "a list of `Score`, as lw.evaluate makes them", self.scores)

    def __add__(self, other: LengthCurve) -> LengthCurve:
        return LengthCurve([*self.scores, *other.scores])

    def __iter__(self):
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        if not self.scores:
            return "LengthCurve(no scores)"
        tasks = ", ".join(dict.fromkeys(score.task for score in self))
        first, last = (end(self, key=lambda s: s.extent).size for end in (min, max))
        return f"LengthCurve({tasks}: {len(self)} scores, {first} to {last} digits)"

    def __str__(self) -> str:
        wide = max([10, *(len(self.label(score)) for score in self.scores)])
        rows = [
            f"{'method':>{wide}} {'suite':>8} {'length':>9} {'exact match':>12} {'digits/s':>11}  "
            "95 % interval"
        ]
        for s in self.scores:
            rows.append(
                f"{self.label(s):>{wide}} {s.suite:>8} {s.size:>9} {s.accuracy:>12.1%} "
                f"{s.digits_per_second:>11,.0f}  "
                f"{s.low:.1%} to {s.high:.1%} (n = {s.n})"
            )
        return "\n".join(rows)

    def records(self) -> list[dict[str, Any]]:
        """One tidy dictionary per score."""
        return [asdict(score) for score in self.scores]

    def to_frame(self) -> pandas.DataFrame:
        """A pandas DataFrame, one row per score.

        Raises:
            InputError: where pandas, which comes with the `notebook` extra, is not installed.
        """
        advice = (
            "to_frame needs pandas: pip install 'lengthwise[notebook]'; records() needs nothing"
        )
        columns = [field.name for field in fields(Score)]
        return library("pandas", advice).DataFrame(self.records(), columns=columns)

    def label(self, score: Score) -> str:
        """The method of a score; with its padding, where the same was asked without it, too."""
        other = (*score.question[:7], "answer", score.decoding)
        if score.padding == "training" and any(one.question == other for one in self.scores):
            return f"{score.method}, padded as trained"
        return score.method

    def labelled(self) -> LengthCurve:
        """The same scores, with `label` as their method: for tables and pictures of all of them."""
        return LengthCurve(replace(score, method=self.label(score)) for score in self.scores)

    def most_careful(self, models: Iterable[str] = ()) -> LengthCurve:
        """Of each question the row with the most problems, of equals the last.

        Args:
            models: fingerprints; rows of other models are left out, unless all are. Rows that do not say
                their model count where nothing else was measured.
        """
        rows = self.scores
        if known := {*models}:
            rows = [score for score in rows if score.model in known] or [
                score for score in rows if not score.model
            ]
        best = {score.question: score for score in sorted(rows, key=lambda score: score.n)}
        return LengthCurve(best[question] for question in dict.fromkeys(s.question for s in rows))

    def fairest(self) -> LengthCurve:
        """Without the rows asked at another width than in training, where one at that width is there."""
        fair = {score.question[:7] for score in self.scores if score.padding == "training"}
        return LengthCurve(
            score
            for score in self.scores
            if score.padding == "training" or score.question[:7] not in fair
        )

    def save(self, folder: Path | str) -> None:
        """Write results.csv and results.json into a folder.

        Raises:
            InputError: where `folder` is no path, or that of a file.
        """
        folder = as_folder("folder", folder)
        if folder.suffix in (".csv", ".json") and not folder.exists():
            raise InputError(
                f"folder takes a folder, in which {RESULTS_CSV} and {RESULTS_JSON} are written; got the "
                f"name of a file, {str(folder)!r}"
            )
        names = [field.name for field in fields(Score)]
        write_csv(folder / RESULTS_CSV, [names, *(astuple(score) for score in self.scores)])
        write_text(folder / RESULTS_JSON, json.dumps(self.records(), indent=1) + "\n")

    def add_to(self, folder: Path | str) -> None:
        """Write these scores below those in the folder; only the same measurement replaces itself."""
        folder = as_folder("folder", folder)
        before = LengthCurve.load(folder) if (folder / RESULTS_JSON).exists() else LengthCurve([])
        again = {score.key for score in self}
        LengthCurve([*(s for s in before if s.key not in again), *self]).save(folder)

    @classmethod
    def load(cls, folder: Path | str) -> LengthCurve:
        """Read results.json of a folder.

        Raises:
            InputError: when it is missing or broken.
        """
        path = as_path("folder", folder, "runs/addition")
        if path.name != RESULTS_JSON:
            path = path / RESULTS_JSON
        try:
            return cls(from_row(Score, row) for row in from_json(read_text(path)))
        except OSError as error:
            raise InputError(f"{folder} holds no results: {error.strerror}") from error
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} does not hold results: {error}") from error
