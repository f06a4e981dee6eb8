"""What a proof says: a certificate, or a counterexample that greedy decoding confirms."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.arguments import as_file
from lengthwise.bias import OWN_TOKEN, Track
from lengthwise.errors import shorten
from lengthwise.files import check_format, from_json, from_row, read_text, write_text
from lengthwise.locality import Cone
from lengthwise.problems.format import Format
from lengthwise.proof.rule import rule_text, save_rule
from lengthwise.runs.folder import CERTIFICATE, WEIGHTS
from lengthwise.runs.run import Run
from lengthwise.runs.weights import bias_text
from lengthwise.settings.config import InputError
from lengthwise.tasks import WORKSHEETS

FORMAT = "lengthwise-certificate/3"
# Written by earlier versions: the first names the task and does not bind its rule.
EARLIER = ("lengthwise-certificate/1", "lengthwise-certificate/2")


@dataclass(frozen=True)
class Certificate:
    """The model is right at every length.

    Attributes:
        task, base: the task.
        claim: what is proven, in one sentence.
        cone: what each output depends on.
        contexts: local contexts that were checked, all that the task allows.
        smallest_margin: the least lead of the right token's logit over the next, of all contexts.
        tightest: a problem and the row in which that lead occurs; of sheets no problem, and the number of
            the context.
        float_bound: by how much rounding may move a logit (docs/proof.md); the margin is over twice that.
        hashes: SHA-256 of weights, bias, the task's rule and the settings that the model depends on.
        versions: lengthwise, torch, Python.
        seconds: of the proof.
        seen: what that row sees, in words; empty where an earlier version wrote it.
        problems: their format; None where an earlier version wrote it.
        rule: the rule's text, which `save` writes beside the certificate; empty once it was loaded.
    """

    task: str
    base: int
    claim: str
    cone: Cone
    contexts: int
    smallest_margin: float
    tightest: tuple[str, int]
    float_bound: float
    hashes: dict[str, str]
    versions: dict[str, Any]
    seconds: float
    seen: str = ""
    problems: Format | None = None
    rule: str = field(default="", compare=False, repr=False)

    proven = True

    @property
    def binds_rule(self) -> bool:
        """Whether it is of one rule; else it was written by an earlier version, for a task's name."""
        return "rule" in self.hashes

    def differs(self, run: Run) -> str | None:
        """Which of `hashes` of a run is another than the certificate's, first; None where it is of the run.

        One that binds no rule is of any.

        Raises:
            NotApplicableError, InputError: as `hashes`.
        """
        for name, value in hashes(run).items():
            if self.hashes.get(name) != value and (name != "rule" or self.binds_rule):
                return name
        return None

    def __repr__(self) -> str:
        return (
            f"Certificate({self.task} in base {self.base}: {self.contexts:,} local contexts, smallest "
            f"margin {self.smallest_margin:.3f})"
        )

    def __str__(self) -> str:
        problem, row = self.tightest
        where = f"at row {row} of {problem}" if problem else "of a query"
        return (
            f"Proven: {self.claim}\n"
            f"  {self.contexts} local contexts, all that there are; {self.seconds:.1f} s\n"
            f"  smallest margin {self.smallest_margin:.3f} {where}, rounding at most "
            f"{self.float_bound:.1e}" + (f"\n  which sees {self.seen}" if self.seen else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """The certificate as JSON values."""
        values = asdict(self)
        del values["rule"]
        values["cone"]["reads"] = [str(track) for track in self.cone.reads]
        return {"format": FORMAT if self.binds_rule else EARLIER[0], "proven": True, **values}

    def save(self, path: Path | str) -> None:
        """Write the certificate, and the rule beside it; each appears whole or not at all.

        Raises:
            InputError: where `path` is no path, or a folder.
        """
        path = as_file("path", path, CERTIFICATE)
        if self.rule:
            save_rule(path.parent, self.rule)
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> Certificate:
        """Read a certificate.

        Raises:
            InputError: when the file is missing or no certificate.
        """
        path = as_file("path", path, CERTIFICATE)
        try:
            values = from_json(read_text(path))
            if not isinstance(values, dict) or "format" not in values:
                raise ValueError(f"it has no format, {FORMAT!r}")
            found = values.pop("format")
            if found not in EARLIER:
                check_format(found, FORMAT)
            if found != EARLIER[0] and "rule" not in values["hashes"]:
                raise ValueError("its hashes lack that of the rule")
            if values.pop("proven") is not True:
                raise ValueError("it does not say that the model is proven")
            values["cone"] = _read_cone(values["cone"])
            if values.get("problems") is not None:
                values["problems"] = Format.read(values["problems"])
            values["tightest"] = (str(values["tightest"][0]), int(values["tightest"][1]))
            return from_row(cls, values)
        except OSError as error:
            raise InputError(f"can't read certificate {path}: {error.strerror}") from error
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not a certificate: {error}") from error


def _read_cone(values: dict[str, Any]) -> Cone:
    """A cone from JSON values; earlier versions listed rows, digits and operands of one digit."""
    if "rows" in values:
        reads = [OWN_TOKEN.moved(row) for row in values["rows"]]
        reads += [Track.along(name, int(column)) for name, column in values["reads"]]
        reads += map(Track, values.get("constants", ()))
    else:
        reads = map(Track.parse, values["reads"])
    return Cone(tuple(sorted(reads)), int(values.get("period", 1)))


@dataclass(frozen=True)
class Counterexample:
    """A problem that the model gets wrong, or gets right by less than rounding can change.

    Attributes:
        task, base: the task.
        problem: the expression; operands may have zeros on the left, which count. Empty where no problem is
            known that shows a context which fails (of sheets).
        row: the row that writes the wrong symbol, 0 for the least significant digit; of sheets the number
            of the token.
        expected, given: the right answer and the model's, least significant digit first, `$` at the end.
        margin: lead of the right token's logit over the next; negative where the answer is wrong.
        contexts: local contexts that were checked.
        failing: how many of them fail.
        seen: what the row sees, in words.
        float_bound: by how much rounding may move a logit.
        drill: failing problems, short ones first, that a training may use: none is kept for validation or
            test, and none is longer than the model's training problems may be.
        seconds: of the search.
    """

    task: str
    base: int
    problem: str
    row: int
    expected: str
    given: str
    margin: float
    contexts: int
    failing: int
    float_bound: float
    drill: tuple[str, ...]
    seconds: float
    seen: str = ""

    proven = False

    def __repr__(self) -> str:
        return (
            f"Counterexample({self.task} in base {self.base}: {shorten(self.problem)!r}, {self.failing:,} "
            f"of {self.contexts:,} local contexts fail)"
        )

    @property
    def wrong(self) -> bool:
        """Whether greedy decoding gives another answer; else the right one leads by too little."""
        return self.expected != self.given

    def __str__(self) -> str:
        share = f"{self.failing} of {self.contexts} local contexts fail; {self.seconds:.1f} s"
        if not self.problem:
            return (
                f"Not proven: no problem is known that shows it, but a query may see\n  {self.seen}\n"
                f"  {share}"
            )
        if self.seen:
            who = "the query of token" if self.task in WORKSHEETS else "row"
            share = f"{who} {self.row} sees {self.seen}\n  {share}"
        if not self.wrong:
            return (
                f"Not proven: at row {self.row} of {self.problem} the right symbol leads by "
                f"{self.margin:.2e}, no more than rounding may move ({self.float_bound:.1e})\n  {share}"
            )
        what = f"token {self.row}" if self.task in WORKSHEETS else f"row {self.row}"
        return (
            f"Refuted: {self.problem}\n"
            f"  should give {self.expected}\n"
            f"  but gives   {self.given} (least significant digit first; wrong from {what})\n"
            f"  {share}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The counterexample as JSON values."""
        return {"format": FORMAT, "proven": False, "wrong": self.wrong, **asdict(self)}


@dataclass(frozen=True)
class NotApplicable:
    """Neither proven nor refuted: the proof can't speak about the model, or not within its budget.

    Attributes:
        reason: why, in one sentence.
    """

    reason: str

    proven = False

    def __str__(self) -> str:
        return f"Neither proven nor refuted: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON values."""
        return {"format": FORMAT, "proven": False, "wrong": False, **asdict(self)}


def hashes(run: Run) -> dict[str, str]:
    """SHA-256 of what a proof depends on: weights, bias, the task's rule and the model.

    Raises:
        NotApplicableError, InputError: as `tabulate`.
    """
    model = {
        "task": run.config.task,
        "base": run.config.base,
        "model": run.config.model.identity(),
    }
    if run.config.parameters:
        model["parameters"] = run.config.parameters
    # How problems lie in the source; not how they are drawn.
    laid = {"alignment", "input_order", "frame"}
    data = run.config.data.model_dump(include=laid, exclude_defaults=True)
    if data:
        model["data"] = data
    parts = {
        "weights": (run.path / WEIGHTS).read_bytes(),
        "bias": bias_text(run.bias).encode(),
        "rule": rule_text(run.task).encode(),
        "model": json.dumps(model, sort_keys=True).encode(),
    }
    return {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
