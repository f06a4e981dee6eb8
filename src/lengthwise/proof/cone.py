"""The receptive cone: the few symbols that one output of a calibrated model depends on."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.bias import AttentionBias, CalibratedBias, Line, Window
from lengthwise.config import Config
from lengthwise.layout import Layout


class NotApplicableError(RuntimeError):
    """The model is none that this proof can speak about; the message names the reason."""


@dataclass(frozen=True)
class Cone:
    """What the row that writes column i depends on, relative to i.

    Attributes:
        rows: rows whose own tokens matter, 0 for the row itself, -1 for the one before, ...; the token
            of row i + r is the digit written in column i + r - 1.
        reads: digits of operands that matter, (operand, column): 0 for the column being written.
    """

    rows: tuple[int, ...]
    reads: tuple[tuple[str, int], ...]

    @property
    def first(self) -> int:
        """The earliest column that matters."""
        return min([row - 1 for row in self.rows] + [column for _, column in self.reads])

    @property
    def last(self) -> int:
        """The latest column that matters; the one being written, or one after it."""
        return max([0] + [column for _, column in self.reads])


def receptive_cone(config: Config, bias: AttentionBias) -> Cone:
    """Work the cone out from the lines of all layers, last to first.

    Raises:
        NotApplicableError: for positions that know where a row is, for a bias without lines, and for lines
            that do not move with the column being written.
    """
    if config.model.positions != "none":
        raise NotApplicableError(
            f"position scheme {config.model.positions!r} tells every row where it is, so that rows are "
            f"not alike; the proof needs 'none'"
        )
    if config.model.encoder_layers:
        raise NotApplicableError(
            "an encoder tells every key of the problem about all others; the proof needs "
            "model.encoder_layers = 0"
        )
    if isinstance(bias, Window):
        raise NotApplicableError(
            "a window opens the keys of columns that lie outside the problem's operands too, and the proof "
            "counts the lines of a calibrated bias alone (lengthwise abc, or train --bias)"
        )
    if not isinstance(bias, CalibratedBias):
        raise NotApplicableError(
            f"the {type(bias).__name__} bias lets a row read ever more keys; the proof needs a calibrated "
            f"bias (lengthwise abc, or train --bias)"
        )
    layout = Layout(config.make_task(), config.width)
    rows, reads = {0}, set()
    for layer in reversed(range(config.model.layers)):
        for line, span in bias.at("cross", layer, layout):
            _check(line, span.grows)
            if span.grows:
                reads |= {(line.segment, row + line.offset) for row in rows}
        back = {
            line.offset for line, span in bias.at("self", layer, layout) if _check(line, span.grows)
        }
        rows |= {row + offset for row in rows for offset in back if offset <= 0}
    return Cone(tuple(sorted(rows)), tuple(sorted(reads)))


def _check(line: Line, grows: bool) -> bool:
    """Whether a line is one that the proof understands; raise where it is not."""
    moving = "diagonal" if line.site == "self" else "anti-diagonal"
    named = line.segment != "whole"
    if named and (
        line.direction == moving if grows else line.direction == "vertical" and not line.offset
    ):
        return True
    raise NotApplicableError(
        f"head {line.head} reads {line.words()} ({line.site}-attention), which does not move with the "
        f"column being written"
    )
