"""Attention maps to a calibrated bias: pure functions from `AttentionMaps` to `CalibratedBias`.

Two policies. `paper` is Algorithm 1 of the paper. `auto` is ours: lines in coordinates,
one line to a head, chosen by two measurements that a line must both pass, the fewest that tell every
symbol.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lengthwise.attention_maps import AttentionMaps, real_rows
from lengthwise.bias import OWN_TOKEN, SITES, CalibratedBias, Line, MatrixTrack, Site, Track
from lengthwise.locality import Contexts, join, reach_of
from lengthwise.proof import BUDGET, NotApplicableError

Policy = Literal["auto", "paper"]
Lines = Literal["fewest", "all"]
KAPPA_CROSS, KAPPA_SELF = 4.5, 0.87

# docs/log.md, 2026-11-24, "What tells a line from noise", has the measurements behind these.
_SUPPORT: dict[Site, float] = {"cross": 0.03, "self": 0.5}
_BOTH = 0.08

# Nats a problem that closing a line costs a model that reads along it, however little attention shows it
# (docs/log.md, 2026-11-26, "A line that no query shows plainly"); and how many such lines may be missing.
_NEEDED, _MISSING = 0.05, 3


class NoLinesError(RuntimeError):
    """Calibration found nothing that the model reads along a line."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for a track.

    Attributes:
        track: the track.
        support: attention beyond that of a uniform head, in the weakest row of real digits, of the
            head that reads it best; 1 means all attention, 0 none beyond uniform.
        need: rise of the loss of a problem, nats, when the track is closed to the model.
        preference: attention along the track per head, the best layer's, mean over rows; `[head]`.
    """

    track: Track
    support: float
    need: float
    preference: tuple[float, ...]

    @property
    def strength(self) -> float:
        """At least 1 where the track is selected: support is past its threshold, and so is the
        geometric mean of support and need."""
        both = math.sqrt(max(self.support, 0.0) * max(self.need, 0.0))
        return min(self.support / _SUPPORT[self.track.site], both / _BOTH)


def gather_evidence(maps: AttentionMaps) -> list[Evidence]:
    """Support and knockout of every candidate track, the strongest first."""
    layout, found = maps.layout, []
    for track, need in maps.knockout.items():
        rows = real_rows(track, layout, maps.length)
        keys, _ = track.keys(layout, rows)
        attention = maps.weights[track.site][:, :, rows, keys]  # [layer, head, row]
        open_keys = rows + 1.0 if track.site == "self" else torch.tensor(layout.source_length)
        beyond = (attention - 1 / open_keys) / (1 - 1 / open_keys)
        found.append(
            Evidence(
                track=track,
                support=beyond.amin(dim=-1).max().item(),
                need=need,
                preference=tuple(attention.mean(dim=-1).amax(dim=0).tolist()),
            )
        )
    return sorted(found, key=lambda evidence: -evidence.strength)


def calibrate(
    maps: AttentionMaps,
    *,
    policy: Policy = "auto",
    kappa_cross: float = KAPPA_CROSS,
    kappa_self: float = KAPPA_SELF,
    lines: Lines = "fewest",
    extra: int = 0,
) -> CalibratedBias:
    """Turn attention maps into a bias that is defined at every length.

    Args:
        maps: from `capture`.
        policy: `auto` or `paper`.
        kappa_cross, kappa_self: drop-off thresholds of the paper's policy.
        lines: `fewest` (`auto` only) drops the lines that pass but are to spare: those without which a row
            still sees enough to know every symbol that it must write, and sees less. Where all that pass
            don't suffice for that, the strongest joins them with which they do.
        extra: lines to select beyond those (`auto` only), for a retraining that found the lines too few;
            those that were to spare come first.

    Raises:
        NoLinesError: when `auto` finds no line at cross-attention.
    """
    if policy == "paper":
        return _paper(maps, {"cross": kappa_cross, "self": kappa_self})
    return _auto(maps, lines, extra)


def _auto(maps: AttentionMaps, lines: Lines, extra: int) -> CalibratedBias:
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
            others = [item for item in evidence if item not in chosen]
            chosen = _fewest(maps, [*chosen, *_faint(others), *_hidden(others)])
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
    lines = _assign(cross, heads, layers)
    lines += _assign(own, heads, layers, spare=OWN_TOKEN)
    return CalibratedBias(maps.format, heads, lines)


def _seen(maps: AttentionMaps, chosen: list[Evidence]) -> Contexts:
    """What a row sees that reads these tracks and its own token."""
    return _contexts(maps, _bias(maps, chosen))


def _contexts(maps: AttentionMaps, bias: CalibratedBias) -> Contexts:
    layers = range(len(maps.weights["cross"]))
    return Contexts(maps.layout.task, join(reach_of(bias, layer, maps.layout) for layer in layers))


def suffices(maps: AttentionMaps, bias: CalibratedBias) -> bool:
    """Whether a row that reads these lines sees enough to know every symbol that it must write.

    Exactly, from the task's definition (`Contexts.suffice`). Lines through whole matrices, which are those
    of the paper's policy, say nothing of columns: of them it is not known.
    """
    try:
        return _contexts(maps, bias).suffice()
    except NotApplicableError:
        return False


def _enough(
    maps: AttentionMaps, chosen: list[Evidence], evidence: list[Evidence]
) -> list[Evidence]:
    """The tracks, with as few more as it takes where they don't tell every symbol and with those do.

    A model interpolates with less: where what it reads leaves a case open that is rare in few digits, it
    goes by what it reads faintly. A retrained model reads its lines and nothing else, and would fail.
    Others come in the order of their strength, and then those that the model cannot do without, although
    some query hides that it reads along them: what closing them costs is evidence enough.
    """
    if not any(item.track.site == "cross" for item in chosen) or _seen(maps, chosen).suffice():
        return chosen
    others = [item for item in evidence if item not in chosen]
    for count in range(1, _MISSING + 1):
        for more in itertools.combinations([*_faint(others), *_hidden(others)], count):
            if _seen(maps, [*chosen, *more]).suffice():
                return [*chosen, *more]
    return chosen


def _faint(evidence: list[Evidence]) -> list[Evidence]:
    """Those that every query reads, in the order of strength."""
    return [item for item in evidence if item.strength > 0]


def _hidden(evidence: list[Evidence]) -> list[Evidence]:
    """Those that some query hardly reads, but closing them costs something: the dearest first."""
    found = [item for item in evidence if item.strength <= 0 and item.need >= _NEEDED]
    return sorted(found, key=lambda item: -item.need)


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


def _assign(
    evidence: list[Evidence], heads: int, layers: int, spare: Track | None = None
) -> list[Line]:
    """One line to a head, each to the head that prefers it most.

    Heads left over read `spare`, or the line that they prefer. Where there are more lines than
    heads, each layer takes its share; only past heads x layers do heads read two.
    """
    if len(evidence) > heads:
        share = max(heads, -(-len(evidence) // layers))
        groups = [evidence[i : i + share] for i in range(0, len(evidence), share)]
        per_layer = [groups[layer % len(groups)] for layer in range(layers)]
        return [
            Line(track, head, layer)
            for layer, group in enumerate(per_layer)
            for track, head in _match(group, heads, spare)
        ]
    return [Line(track, head) for track, head in _match(evidence, heads, spare)]


def _match(evidence: list[Evidence], heads: int, spare: Track | None) -> list[tuple[Track, int]]:
    pairs: list[tuple[Track, int]] = []
    free = set(range(heads))
    for item in evidence:
        head = max(sorted(free or range(heads)), key=lambda head: item.preference[head])
        pairs.append((item.track, head))
        free.discard(head)
    for head in sorted(free):
        best = max(evidence, key=lambda item: item.preference[head], default=None)
        if spare is not None:
            pairs.append((spare, head))
        elif best is not None:
            pairs.append((best.track, head))
    return pairs


def _paper(maps: AttentionMaps, kappas: dict[Site, float]) -> CalibratedBias:
    """Algorithm 1, on the last layer's maps, for all layers.

    Choices where text and code of the paper differ, or are silent: lines are averaged, not summed,
    and the largest is subtracted (text); all rows count (text; the code masks some); sigma is that
    of the population; the set of directions is the diagonal, the anti-diagonal and the vertical;
    the causal mask is always kept (the code drops it where a bias is loaded).
    """
    heads = maps.weights["cross"].shape[1]
    lines: list[Line] = []
    for site in SITES:
        last = maps.weights[site][-1]
        kept = [
            line
            for direction in DIRECTIONS
            for line in _drop_off(last, site, direction, kappas[site])
        ]
        transparent = set(range(heads)) - {line.head for line in kept}
        lines += kept + [
            Line(MatrixTrack(site, "everywhere"), head) for head in sorted(transparent)
        ]
    return CalibratedBias(maps.format, heads, lines)


DIRECTIONS: tuple[Literal["diagonal", "anti-diagonal", "vertical"], ...] = (
    "diagonal",
    "anti-diagonal",
    "vertical",
)


def line_means(maps: Tensor, direction: str) -> tuple[Tensor, Tensor]:
    """The mean of every line of one direction through a whole matrix.

    Args:
        maps: `[head, query, key]`.
        direction: `diagonal` and `vertical` count offsets from the left edge, `anti-diagonal` from the
            right (paper, section 5).

    Returns:
        Offsets int64 `[line]`, as in `MatrixTrack`, and means `[head, line]`.
    """
    heads, queries, keys = maps.shape
    row, column = torch.arange(queries)[:, None], torch.arange(keys)
    offset = {
        "diagonal": column - row,
        "anti-diagonal": keys - 1 - column - row,
        "vertical": column.expand(queries, keys),
    }[direction]
    first = int(offset.min())
    index = (offset - first).flatten()
    count = torch.bincount(index)
    sums = torch.zeros(heads, len(count), dtype=torch.float64)
    sums.index_add_(1, index, maps.flatten(1).double())
    return torch.arange(first, first + len(count)), sums / count


def _drop_off(maps: Tensor, site: Site, direction, kappa: float) -> list[Line]:
    """The lines of one direction whose mean is beyond mu + kappa sigma, head by head."""
    offsets, means = line_means(maps, direction)
    threshold = means.mean(dim=1) + kappa * means.std(dim=1, correction=0)
    kept = []
    for head, line in (means > threshold[:, None]).nonzero().tolist():
        value = (means[head, line] - means[head].max()).item()
        track = MatrixTrack(site, direction, int(offsets[line]))
        kept.append(Line(track, head, value=value))
    return kept
