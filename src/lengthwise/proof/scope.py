"""What a proof can speak about: models whose rows are alike, and see a bounded part of a problem."""

from __future__ import annotations

from lengthwise.bias import AttentionBias, CalibratedBias, MatrixBias, Window
from lengthwise.locality import (
    Cone,
    NotApplicableError,
    Reach,
    cone_of_sheet,
    join,
    reach_of,
    window_reach,
)
from lengthwise.model.positions import POSITIONS
from lengthwise.settings.config import Config
from lengthwise.tasks.own import has_rule, lost_digits


def receptive_cone(config: Config, bias: AttentionBias) -> Cone:
    """Work the cone out from the lines of all layers, or from a window.

    Raises:
        NotApplicableError: for tasks that are not local, for positions that know where a row is, for a
            bias that is neither lines nor a window, and for those that do not move with the column written.
    """
    if not config.is_sheet:
        return join(receptive_reaches(config, bias), period_of(config))
    if period_of(config) != 1:
        raise NotApplicableError(
            "positions with a period are not told by what a query of a sheet sees; the proof needs "
            "model.positions = none"
        )
    _refuse_encoder(config)
    if not isinstance(bias, CalibratedBias):
        raise _unbounded(bias)
    return Cone(cone_of_sheet(config.make_task(), bias, config.model.layers))


def _refuse_encoder(config: Config) -> None:
    if config.model.encoder_layers:
        raise NotApplicableError(
            "an encoder tells every key of the problem about all others; the proof needs "
            "model.encoder_layers = 0"
        )


def _unbounded(bias: AttentionBias) -> NotApplicableError:
    return NotApplicableError(
        f"the {type(bias).__name__} bias lets a row read ever more keys; the proof needs a calibrated "
        f"bias (lengthwise abc, or train --bias) or a window"
    )


def period_of(config: Config) -> int:
    """The period of the model's positions; 1 where they tell nothing.

    Raises:
        NotApplicableError: for positions without a period.
    """
    scheme = POSITIONS[config.model.positions].with_period(config.model.period)
    if scheme.kind == "none":
        return 1
    # Turned queries and keys see distances, which the width moves: no period of `rotate` is known here.
    if scheme.kind == "add" and scheme.period is not None:
        return scheme.period
    cyclic = [name for name, scheme in POSITIONS.items() if scheme.kind == "add" and scheme.period]
    raise NotApplicableError(
        f"position scheme {config.model.positions!r} tells every row where it is, so that rows are "
        f"not alike; the proof needs 'none' or positions with a period ({', '.join(cyclic)})"
    )


def receptive_reaches(config: Config, bias: AttentionBias) -> list[Reach]:
    """What a row reads in each layer, first to last.

    Raises:
        NotApplicableError: as `receptive_cone`.
    """
    if not has_rule(config.make_task()):
        raise NotApplicableError(
            f"of {config.task} problems and answers are known, and no rule; a proof needs the rule"
        )
    if config.make_task().writes is not None:
        raise NotApplicableError(
            f"an answer of {config.task} depends on all of the problem, however long that is; the proof "
            f"needs outputs that depend on a bounded part of it"
        )
    lost = lost_digits(config.make_task())
    if lost is not None:
        raise NotApplicableError(lost)
    period_of(config)
    _refuse_encoder(config)
    if isinstance(bias, MatrixBias):
        raise NotApplicableError(
            "the bias is of fixed matrices, which end at their own width; `lengthwise convert` turns them "
            "into lines, which are defined at every length"
        )
    if not isinstance(bias, CalibratedBias | Window):
        raise _unbounded(bias)
    layout = config.layout()
    if isinstance(bias, Window):
        return [window_reach(bias, config.format)] * config.model.layers
    return [reach_of(bias, layer, layout) for layer in range(config.model.layers)]
