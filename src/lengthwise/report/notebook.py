"""What a notebook shows of each object: HTML tables and sentences, escaped, and pictures among them.

Once this is imported, objects of other rooms show themselves so; these know nothing of it. A notebook shows
the HTML where it can, so that holds the picture, too.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lengthwise.bias import CalibratedBias, MatrixBias
from lengthwise.calibration.maps import AttentionMaps
from lengthwise.calibration.sheet_maps import SheetMaps
from lengthwise.errors import InputError, shorten
from lengthwise.evaluation.curve import LengthCurve, Score
from lengthwise.pipeline.outcome import Outcome
from lengthwise.proof import Certificate, Counterexample, Estimate, NotApplicable
from lengthwise.report.summary import certificate_facts, percent, training_facts
from lengthwise.runs.metrics import read_metrics
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, flat_settings

# Rows of a table; what a person wants of more is in `to_frame` and `records`.
_MOST_ROWS = 60

# The widest operands whose matrices are drawn: past them a key is less than a dot.
_MOST_DIGITS = 60

# Left in every cell; notebooks align cells to the right by default.
_CELL = "text-align:left;vertical-align:top"


def curve_html(curve: LengthCurve) -> str:
    """The picture of a curve, and its table: a row for each length."""
    if not curve.scores:
        return _paragraph("No scores.")
    found = curve.most_careful().labelled()
    several = [len({getattr(score, name) for score in found}) > 1 for name in ("task", "base")]

    def column(score: Score) -> str:
        task = f"{score.task} " * several[0] + f"base {score.base} " * several[1]
        return f"{task}{score.method}, {score.suite}"

    columns = list(dict.fromkeys(column(score) for score in found))
    lengths = sorted({(score.extent, score.size) for score in found})
    rows = []
    for extent, size in lengths[:_MOST_ROWS]:
        here = [score for score in found if score.extent == extent]
        cells = [[score for score in here if column(score) == name] for name in columns]
        rows.append(
            [f"{int(size):,}" if size.isdecimal() else size, *(_share(scores) for scores in cells)]
        )
    more = len(lengths) - len(rows)
    note = _paragraph(f"... and {more:,} lengths more; to_frame() has all.") if more else ""
    return _picture(figure_png(plot(curve))) + _table(rows, ["digits", *columns]) + note


def plot(shown: LengthCurve | AttentionMaps | SheetMaps, path: Path | str | None = None) -> Any:
    """Draw it; write the picture to `path`, or return the matplotlib figure.

    Of a curve accuracy against length; of attention a panel for each layer, site and head, of sheets along
    lines near a cell.
    """
    from lengthwise.report.plots import attention_maps, length_curve
    from lengthwise.report.sheet_plots import sheet_attention

    if isinstance(shown, LengthCurve):
        return length_curve(shown, path)
    draw: Any = sheet_attention if isinstance(shown, SheetMaps) else attention_maps
    return draw(shown, path)


def figure_png(figure) -> bytes:
    """A figure that was written nowhere, as a notebook shows it."""
    return figure._repr_png_()


def _share(scores: Sequence[Score]) -> str:
    if not scores:
        return ""
    n, correct = sum(score.n for score in scores), sum(score.correct for score in scores)
    return f"{percent(correct / n)} ({correct:,} of {n:,})"


def lines_html(bias: CalibratedBias) -> str:
    """What each head reads, in words."""
    where = {"cross": "in the problem", "self": "in the answer so far"}
    rows = [(where[site], f"{heads} {words}") for site, heads, words in bias.readings()]
    return _paragraph(f"Calibrated bias for {bias.task}, {bias.heads} heads") + _table(rows)


def matrices_html(bias: MatrixBias) -> str:
    """The matrices in words, and drawn."""
    png = matrices_png(bias)
    return text_html(bias) + (_picture(png) if png else "")


def matrices_png(bias: MatrixBias) -> bytes | None:
    """The keys that matrices leave open; None where there are too many to be seen."""
    from lengthwise.report.plots import bias_map

    if bias.width > _MOST_DIGITS:
        return None
    return figure_png(bias_map(bias, bias.format.at(bias.width)))


def settings_html(config: Config) -> str:
    """The settings that were set; the others are as in `configs/default.toml`."""
    given = flat_settings(config, given=True).items()
    rows = [(key, shorten(value) if isinstance(value, str) else str(value)) for key, value in given]
    return _table(rows) + _paragraph("All else is as by default.")


def run_html(run: Run) -> str:
    """What a run is, and how its training ended."""
    try:
        metrics = read_metrics(run)
    except InputError:
        metrics = []
    what = {"Task": f"{run.config.task}, base {run.config.base}", "Method": run.method}
    facts = {**what, **training_facts(run.config, metrics), "Folder": str(run.path)}
    return _table([*facts.items()])


def certificate_html(proof: Certificate) -> str:
    """What is proven, and by how much."""
    return _table([("Proven", proof.claim), *certificate_facts(proof).items()])


def counterexample_html(proof: Counterexample) -> str:
    """The problem that a model gets wrong."""
    first = "least significant digit first"
    facts = [
        ("refuted by" if proof.wrong else "not proven for", shorten(proof.problem)),
        ("should give", f"{shorten(proof.expected)} ({first})"),
        ("gives", f"{shorten(proof.given)} (first wrong in row {proof.row})"),
        ("local contexts", f"{proof.failing:,} of {proof.contexts:,} fail"),
        ("seconds", f"{proof.seconds:.1f}"),
    ]
    if not proof.wrong:
        lead = (
            f"the right symbol leads by {proof.margin:.2e} in row {proof.row}; rounding may move "
        )
        facts[2] = ("but", f"{lead}{proof.float_bound:.1e}")
    return _table(facts)


def outcome_html(outcome: Outcome) -> str:
    """What the whole method made: the verdict, the curve, the lines, the runs."""
    facts = [(stage, f"{spent:.1f} s") for stage, spent in outcome.seconds.items()]
    runs = {"vanilla run": outcome.vanilla, "calibrated run": outcome.calibrated}
    facts += [(name, str(run.path)) for name, run in runs.items()]
    shown = curve_html(outcome.curve) + lines_html(outcome.bias)
    return _paragraph(outcome.verdict) + shown + _table(facts)


def text_html(shown: object) -> str:
    """An object in its own words, line by line."""
    return "".join(_paragraph(line.strip()) for line in str(shown).splitlines())


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _picture(png: bytes) -> str:
    return f'<img alt="" src="data:image/png;base64,{b64encode(png).decode()}">'


def _table(rows: Iterable[Sequence[str]], heads: Sequence[str] = ()) -> str:
    """A table of texts; without heads the first cell of each row names it."""
    out = ["<table>"]
    if heads:
        cells = "".join(f'<th style="{_CELL}">{escape(head)}</th>' for head in heads)
        out.append(f"<thead><tr>{cells}</tr></thead>")
    out.append("<tbody>")
    for first, *rest in rows:
        cells = "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in rest)
        out.append(f'<tr><th style="{_CELL}">{escape(first)}</th>{cells}</tr>')
    return "".join([*out, "</tbody></table>"])


_DRAWN = {"plot": plot, "_repr_png_": lambda shown: figure_png(plot(shown))}
_SHOWN = {
    AttentionMaps: _DRAWN,
    CalibratedBias: {"_repr_html_": lines_html},
    Certificate: {"_repr_html_": certificate_html},
    Config: {"_repr_html_": settings_html},
    Counterexample: {"_repr_html_": counterexample_html},
    Estimate: {"_repr_html_": text_html},
    LengthCurve: {
        "plot": plot,
        "_repr_html_": curve_html,
        "_repr_png_": lambda curve: figure_png(plot(curve)) if curve.scores else None,
    },
    MatrixBias: {"_repr_html_": matrices_html, "_repr_png_": matrices_png},
    NotApplicable: {"_repr_html_": text_html},
    Outcome: {"_repr_html_": outcome_html},
    Run: {"_repr_html_": run_html},
    SheetMaps: _DRAWN,
}
for _kind, _methods in _SHOWN.items():
    for _name, _method in _methods.items():
        setattr(_kind, _name, _method)
