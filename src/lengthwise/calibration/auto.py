"""The policy `auto`: lines in coordinates, one to a head, the fewest that tell every symbol.

A line is chosen by two measurements that it must both pass (`lengthwise.calibration.evidence`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from lengthwise.bias import OWN_TOKEN, CalibratedBias, Line, Track
from lengthwise.calibration.evidence import Evidence, gather_evidence
from lengthwise.calibration.line_sets import fewest, others, select
from lengthwise.calibration.maps import AttentionMaps
from lengthwise.locality import Contexts, KnownContexts, join, reach_of
from lengthwise.proof import BUDGET
from lengthwise.tasks.own import has_rule

Lines = Literal["fewest", "all"]

# Lines to the answer of which each way to leave them to one layer is tried, at most.
_MOST_MOVED = 3


class NoLinesError(RuntimeError):
    """Calibration found nothing that the model reads along a line."""


def choose(maps: AttentionMaps, lines: Lines, extra: int) -> CalibratedBias:
    """Lines that some head reads in every row of real digits, and that the model cannot do without.

    Layers and heads are pooled: what a model with absolute positions spreads over layers, each layer of
    the retrained model may read. Each head then gets one line, so that it copies one symbol and
    nothing is averaged: two lines in one head without positions are a sum that hides its parts.
    """
    # Every row holds its own token anyway: heads without another line read that.
    evidence = [item for item in gather_evidence(maps) if item.track != OWN_TOKEN]
    if not evidence:
        raise NoLinesError(
            f"no line can be found in {maps.task}: a row of it writes no column of its own, but depends "
            f"on all of the problem"
        )
    if lines == "fewest":
        chosen = select(evidence, partial(_seen, maps), BUDGET)
    else:
        chosen = [item for item in evidence if item.strength >= 1]
    more = [item for item in evidence if item not in chosen][:extra]
    # In the order of strength, for the strongest line chooses its head first.
    chosen = [item for item in evidence if item in chosen or item in more]
    if not any(item.track.site == "cross" for item in chosen):
        best = max(evidence, key=lambda item: item.strength)
        raise NoLinesError(
            f"no head of the {maps.task} model reads along a line; the nearest is "
            f"{best.track.words()} (support {best.support:.2f}, need {best.need:.2f} nats). Does the model "
            f"interpolate? It answers {maps.exact_match:.1%} of its training problems"
        )
    bias = lines_of(maps, chosen)
    return bias if lines == "all" else _within(maps, chosen, bias, BUDGET)


def choose_direct(maps: AttentionMaps) -> CalibratedBias | None:
    """The fewest lines with any evidence that tell a query every symbol by what it reads itself.

    Those of `choose` may tell some by a detour, through what an earlier query has read, and not every
    detour is learned (docs/log.md, 2026-11-27, "lines that tell all and teach nothing"). None where no such
    lines do.
    """
    seen = partial(_seen, maps, everywhere=True, layers=1)
    evidence = gather_evidence(maps)
    passing = [item for item in evidence if item.strength >= 1]
    some = [*passing, *others(evidence, passing)]
    # Symbols are the same in every problem.
    silent = {OWN_TOKEN, *(Track(symbol) for symbol in maps.layout.task.symbols)}
    some = [item for item in some if item.track not in silent]
    return lines_of(maps, fewest(some, seen)) if seen(some).suffice() else None


def lines_of(
    maps: AttentionMaps, chosen: Sequence[Evidence], only: Mapping[Track, int] | None = None
) -> CalibratedBias:
    """The lines of these tracks, one to a head.

    Args:
        maps: of the model.
        chosen: the tracks.
        only: of each track of the answer the one layer that reads it; left out, all layers read all. Not of
            models with one attention for both.
    """
    layers, heads = maps.weights["cross"].shape[:2]
    cross = [item for item in chosen if item.track.site == "cross"]
    own = [item for item in chosen if item.track.site == "self"]
    if maps.joint:  # one attention for both: a head reads one line, wherever that leads
        lines = assign(chosen, heads, layers, spare=OWN_TOKEN)
        return CalibratedBias(maps.format, heads, lines)
    lines = assign(cross, heads, layers)
    if only is None:
        lines += assign(own, heads, layers, spare=OWN_TOKEN)
    else:
        for layer in range(layers):
            some = [item for item in own if only[item.track] == layer]
            lines += _match(some, heads, layer, OWN_TOKEN)
    return CalibratedBias(maps.format, heads, lines)


def _within(
    maps: AttentionMaps, chosen: list[Evidence], bias: CalibratedBias, budget: int
) -> CalibratedBias:
    """The bias; where a row sees more contexts than the budget, with lines to the answer in one layer each.

    What a row reads of an earlier one in the second layer has read the problem in the first; where it has
    not looked back itself there, the cone is one row less deep. Of the ways that tell every symbol the one
    with the fewest contexts is taken, of equals that of the latest layers; where it saves nothing, the bias
    stays. Such models are harder to train (docs/log.md, 2026-11-24, "The fewest lines, shared states, and a
    model that sampling calls perfect"), so it is only done where a proof could not be.
    """
    own = [item.track for item in chosen if item.track.site == "self"]
    contexts, layers = contexts_of(maps, bias), range(len(maps.weights["cross"]))
    if (
        maps.joint
        or contexts.bound() <= budget
        or not 0 < len(own) <= _MOST_MOVED
        or not contexts.suffice()
    ):
        return bias
    found, fewest = bias, contexts.bound()
    for places in itertools.product(reversed(layers), repeat=len(own)):
        other = lines_of(maps, chosen, dict(zip(own, places, strict=True)))
        contexts = contexts_of(maps, other)
        if contexts.bound() < fewest and contexts.suffice():
            found, fewest = other, contexts.bound()
    return found


def _seen(
    maps: AttentionMaps,
    chosen: Sequence[Evidence],
    *,
    everywhere: bool = False,
    layers: int | None = None,
) -> Contexts | KnownContexts:
    """What a row sees that reads these tracks and its own token: dealt out, or each in every layer."""
    if everywhere:
        lines = [Line(track) for track in (OWN_TOKEN, *(item.track for item in chosen))]
        return contexts_of(maps, CalibratedBias(maps.format, 1, lines), layers)
    return contexts_of(maps, lines_of(maps, chosen))


def contexts_of(
    maps: AttentionMaps, bias: CalibratedBias, layers: int | None = None
) -> Contexts | KnownContexts:
    """What a query of the model sees under a bias; where there is no rule, in the problems that are known.

    Args:
        layers: the first ones, that count; None for all.

    Raises:
        NotApplicableError: for lines that do not move with the column being written.
    """
    layers = layers or len(maps.weights["cross"])
    cone = join(reach_of(bias, layer, maps.layout) for layer in range(layers))
    task = maps.layout.task
    return Contexts(task, cone) if has_rule(task) else KnownContexts(maps.layout, cone)


def assign(
    evidence: Sequence[Evidence], heads: int, layers: int, spare: Track | None = None
) -> list[Line]:
    """One line to a head, each to the head that prefers it most.

    Heads left over read `spare`, or the line that they prefer. Where there are more lines than
    heads, each layer takes its share; only past heads x layers do heads read two.
    """
    if len(evidence) <= heads:
        return _match(evidence, heads, None, spare)
    share = max(heads, -(-len(evidence) // layers))
    groups = [evidence[i : i + share] for i in range(0, len(evidence), share)]
    return [
        line
        for layer in range(layers)
        for line in _match(groups[layer % len(groups)], heads, layer, spare)
    ]


def _match(
    evidence: Sequence[Evidence], heads: int, layer: int | None, spare: Track | None
) -> list[Line]:
    lines: list[Line] = []
    free = set(range(heads))
    for item in evidence:
        head = max(sorted(free or range(heads)), key=lambda head: item.preference[head])
        lines.append(Line(item.track, head, layer))
        free.discard(head)
    for head in sorted(free) if spare or evidence else ():
        track = spare or max(evidence, key=lambda item: item.preference[head]).track
        lines.append(Line(track, head, layer))
    return lines
