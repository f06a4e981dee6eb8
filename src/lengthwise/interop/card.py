"""The card of a model on the Hub: what it computes, what is proven, and exact match by length."""

from __future__ import annotations

import json
import re
from html import escape

from lengthwise.bias import CalibratedBias
from lengthwise.errors import shorten
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.proof import Certificate
from lengthwise.report.summary import percent
from lengthwise.runs.run import Run
from lengthwise.version import __version__

# Rows of the table: a card is read by people.
_MOST_ROWS = 60

_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~>-])")


def safe(text: object, most: int = 200) -> str:
    """Any text as words of a card: one line, without tags, tables, links or headings of its own."""
    line = " ".join(shorten(str(text), most).split())
    return escape(_MARKS.sub(r"\\\1", line), quote=False)


def code(text: object) -> str:
    """Any text as code within a line, but of no table, where `|` would end a cell."""
    line = " ".join(shorten(str(text), 200).split()) or " "
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: object, language: str = "") -> str:
    """Any text as a block of code, which nothing in it can end."""
    longest = max(map(len, re.findall("`+", str(text))), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def write_card(run: Run, curve: LengthCurve, certificate: Certificate | None) -> str:
    """The card's text, below its metadata.

    Args:
        run: whose model it is.
        curve: its scores; without any the card says that there are none.
        certificate: of this very model, where there is one.
    """
    config, example = run.config, run.task.example
    base = f" in base {config.base}" if len(run.task.bases) > 1 else ""
    given = ", ".join(f"{name} {shorten(str(value))}" for name, value in config.parameters.items())
    size = config.size if config.is_sheet else config.data.length
    parameters = sum(weight.numel() for weight in run.model.parameters())
    parts = [
        f"# {safe(config.task)}{base}{safe(f' ({given})') if given else ''}",
        f"A transformer of {parameters:,} parameters, trained by lengthwise on problems of at most {size} "
        f"digits (seed {config.seed}, method {safe(run.method)}). It writes its answers symbol by symbol; "
        f"{code(example[0])} is an expression that it takes.",
        block(
            "import lengthwise as lw\n\n"
            'run = lw.Run.from_pretrained("FOLDER-OR-REPO")\n'
            f"run.solve({json.dumps(example[0])})",
            "python",
        ),
        "`lengthwise solve FOLDER EXPRESSION` answers, too: the folder is a run. Nothing in it is "
        "executed.",
        "## Proof",
        _proof(certificate),
        "## Exact match",
        _table(curve),
    ]
    if isinstance(run.bias, CalibratedBias):
        parts += ["## What each head reads", block(run.bias.explain())]
    parts += [
        "## Settings",
        f"All are in `config.json`, versions in `versions.json`; written by lengthwise {__version__}.",
    ]
    return "\n\n".join(parts) + "\n"


def _proof(certificate: Certificate | None) -> str:
    if certificate is None:
        return "There is no certificate: beyond the table nothing is known."
    return (
        f"**Proven:** {safe(certificate.claim, 400)}. All {certificate.contexts:,} local contexts were "
        f"checked; the right symbol leads by at least {certificate.smallest_margin:.3f}. "
        "`lengthwise verify FOLDER/certificate.json FOLDER` proves it again."
    )


def _table(curve: LengthCurve) -> str:
    """Exact match by length, with numbers of problems and 95 % Wilson intervals."""
    if not curve.scores:
        return "Not measured; `lengthwise evaluate FOLDER` does."
    scores = sorted(curve.labelled(), key=lambda s: (s.suite, s.extent))
    lines = [
        "| digits | suite | right | of problems | exact match | 95 % interval |",
        "|" + "---|" * 6,
    ]
    for s in scores[:_MOST_ROWS]:
        cells = (
            *(safe(s.size), safe(s.suite), f"{s.correct:,}", f"{s.n:,}"),
            *(percent(s.accuracy), f"{percent(s.low)} to {percent(s.high)}"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        "A problem counts when every symbol is right, and the end. No problem of the split `test` is ever "
        "trained on."
    )
    left = len(scores) - _MOST_ROWS
    more = f" {left:,} rows more are in `results.csv`." if left > 0 else ""
    return "\n".join(lines) + f"\n\n{note}{more}"
