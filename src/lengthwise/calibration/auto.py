"""The policy `auto`: lines in coordinates, one to a head, the fewest that tell every symbol.

A line is chosen by two measurements that it must both pass (`lengthwise.calibration.evidence`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from lengthwise.bias import OWN_TOKEN, CalibratedBias, Line, Track
from lengthwise.calibration.evidence import Evidence, gather_evidence
from lengthwise.calibration.maps import AttentionMaps
from lengthwise.locality import Contexts, KnownContexts, NotApplicableError, join, reach_of
from lengthwise.proof import BUDGET
from lengthwise.tasks.own import has_rule

Lines = Literal["fewest", "all"]

# Nats a problem that closing a line costs a model that reads along it, however little attention shows it
# (docs/log.md, 2026-11-26, "A line that no query shows plainly"); and how many such lines may be missing.
_NEEDED, _MISSING = 0.05, 3


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
    chosen = [item for item in evidence if item.strength >= 1]
    if lines == "fewest":
        chosen = _fewest(maps, _enough(maps, chosen, evidence))
        if chosen and _seen(maps, chosen).bound() > BUDGET:
            # What the model reads faintly may do instead of what makes a proof too long.
            chosen = _fewest(maps, [*chosen, *_others(evidence, chosen)])
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
    return _bias(maps, chosen)


def _bias(maps: AttentionMaps, chosen: list[Evidence]) -> CalibratedBias:
    """The lines of these tracks, one to a head."""
    layers, heads = maps.weights["cross"].shape[:2]
    cross = [item for item in chosen if item.track.site == "cross"]
    own = [item for item in chosen if item.track.site == "self"]
    if maps.joint:  # one attention for both: a head reads one line, wherever that leads
        lines = assign(chosen, heads, layers, spare=OWN_TOKEN)
    else:
        lines = assign(cross, heads, layers)
        lines += assign(own, heads, layers, spare=OWN_TOKEN)
    return CalibratedBias(maps.format, heads, lines)


def _seen(maps: AttentionMaps, chosen: list[Evidence]) -> Contexts | KnownContexts:
    """What a row sees that reads these tracks and its own token."""
    return contexts_of(maps, _bias(maps, chosen))


def contexts_of(maps: AttentionMaps, bias: CalibratedBias) -> Contexts | KnownContexts:
    """What a query of the model sees under a bias; where there is no rule, in the problems that are known.

    Raises:
        NotApplicableError: for lines that do not move with the column being written.
    """
    layers = range(len(maps.weights["cross"]))
    cone = join(reach_of(bias, layer, maps.layout) for layer in layers)
    task = maps.layout.task
    return Contexts(task, cone) if has_rule(task) else KnownContexts(maps.layout, cone)


def suffices(maps: AttentionMaps, bias: CalibratedBias) -> bool:
    """Whether a row that reads these lines sees enough to know every symbol that it must write.

    Exactly, from the task's definition (`Contexts.suffice`). Lines through whole matrices, which are those
    of the paper's policy, say nothing of columns: of them it is not known.
    """
    try:
        return contexts_of(maps, bias).suffice()
    except NotApplicableError:
        return False


def _enough(
    maps: AttentionMaps, chosen: list[Evidence], evidence: list[Evidence]
) -> list[Evidence]:
    """The tracks, with as few more as it takes where they don't tell every symbol and with those do.

    A model interpolates with less: where what it reads leaves a case open that is rare in few digits, it
    goes by what it reads faintly. A retrained model reads its lines and nothing else, and would fail.
    Attention may be faint, or hidden in some query; what closing a line costs the model is evidence enough.
    Of sets that are equally small, of lines that are needed, the one with the fewest contexts is taken.
    """
    if not any(item.track.site == "cross" for item in chosen) or _seen(maps, chosen).suffice():
        return chosen

    def cost(more: tuple[Evidence, ...]) -> tuple[bool, int, float]:
        idle = any(item.need < _NEEDED for item in more)
        return idle, _seen(maps, [*chosen, *more]).bound(), -sum(item.need for item in more)

    for count in range(1, _MISSING + 1):
        sets = itertools.combinations(_others(evidence, chosen), count)
        if enough := [more for more in sets if _seen(maps, [*chosen, *more]).suffice()]:
            return [*chosen, *min(enough, key=cost)]
    return chosen


def _others(evidence: list[Evidence], chosen: list[Evidence]) -> list[Evidence]:
    """Those not chosen that every query reads, in the order of strength; then those that some query
    hardly reads, but closing them costs something: the dearest first."""
    others = [item for item in evidence if item not in chosen]
    hidden = [item for item in others if item.strength <= 0 and item.need >= _NEEDED]
    faint = [item for item in others if item.strength > 0]
    return faint + sorted(hidden, key=lambda item: -item.need)


def _fewest(maps: AttentionMaps, chosen: list[Evidence]) -> list[Evidence]:
    """The tracks without those to spare: one at a time goes, the one that leaves the fewest contexts.

    A track is to spare when what the others read, with the row's own token, still tells every symbol, the
    end token too (`Contexts.suffice`: exactly, from the task's definition), and a row sees less without
    it. Where all tracks together don't tell every symbol, all stay. Of equals the weakest goes.
    """
    bound = _seen(maps, chosen).bound()
    while True:
        found = []
        for place, item in enumerate(chosen):
            rest = chosen[:place] + chosen[place + 1 :]
            contexts = _seen(maps, rest)
            found.append((contexts.bound(), item.strength, contexts, rest))
        found.sort(key=lambda one: one[:2])
        best = next((one for one in found if one[0] < bound and one[2].suffice()), None)
        if best is None:
            return chosen
        bound, _, _, chosen = best


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
