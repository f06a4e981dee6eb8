"""An account of a calibration: what spoke for each line, what became of it, and what else would do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from lengthwise.bias import OWN_TOKEN, CalibratedBias, Line, Track
from lengthwise.calibration import Maps, SheetMaps, evidence_of
from lengthwise.calibration.auto import contexts_of, lines_of
from lengthwise.calibration.evidence import Evidence, gather_evidence
from lengthwise.locality import KnownContexts, NotApplicableError, cone_of_sheet, look_alikes
from lengthwise.locality.sheets import LAST_TOKEN, contexts_along, near_of, tell_apart

# Lines that were not chosen and are told of, and those of them that are tried in the place of chosen ones.
_OTHERS, _TRIED = 6, 6


@dataclass(frozen=True)
class Finding:
    """A candidate line.

    Attributes:
        evidence: what spoke for it.
        fate: what became of it.
        instead: lines that were not chosen and with any of which, in its place, a query would still see
            enough to know every symbol.
    """

    evidence: Evidence
    fate: str
    instead: tuple[Track, ...] = ()

    def __str__(self) -> str:
        one = self.evidence
        turns = f" ({one.shared:.2f} by turns)" if one.strength < 1 <= one.turns else ""
        numbers = f"support {one.support + 0.0:.2f}{turns}, need {one.need + 0.0:.2f} nats"
        others = f"; {', '.join(map(str, self.instead))} would do instead" if self.instead else ""
        return f"{one.track}: {self.fate} ({numbers}){others}"


def unusual(maps: Maps, bias: CalibratedBias) -> list[str]:
    """Of a task of one row: how lines were found that did not simply pass; which one layer reads alone."""
    if isinstance(maps, SheetMaps) or any(not isinstance(ln.track, Track) for ln in bias.lines):
        return []
    used = {line.track for line in bias.lines} - {OWN_TOKEN}
    chosen = [item for item in gather_evidence(maps) if item.track in used]
    told = [f"{item.track} is read: {how}" for item in chosen if (how := _how_found(item))]
    alone = left_alone(bias)
    if alone:
        moved, spread = (contexts_of(maps, some).bound() for some in (bias, lines_of(maps, chosen)))
        for track, layer in alone.items():
            told.append(
                f"{track} is read in layer {layer} alone: {moved:,} local contexts; in all layers "
                f"{spread:,}, too many to prove"
            )
    return told


def _how_found(item: Evidence) -> str:
    """In words; nothing for a line that passed."""
    if item.strength >= 1:
        return ""
    cost = f"closing it costs {item.need + 0.0:.2f} nats"
    if item.turns >= 1:
        return f"heads take turns at it (support {item.shared:.2f}, of one head {item.support:.2f}), {cost}"
    if item.strength > 0:
        return f"faintly (support {item.support:.2f}), but the others leave a case open; {cost}"
    return f"the others leave a case open, and though some query hardly reads it, {cost}"


def left_alone(bias: CalibratedBias) -> dict[Track, int]:
    """The lines to the answer that one layer reads, where others could, and that layer."""
    layers: dict[Track, set[int | None]] = defaultdict(set)
    for line in bias.lines:
        if isinstance(line.track, Track) and line.site == "self" and line.track != OWN_TOKEN:
            layers[line.track].add(line.layer)
    if len(layers) > bias.heads:  # each layer has its share
        return {}
    return {
        track: layer
        for track, found in sorted(layers.items())
        if len(found) == 1 and (layer := next(iter(found))) is not None
    }


def fate_of(item: Evidence, bias: CalibratedBias | None) -> str:
    """What became of a candidate line under a bias."""
    if bias is None or item.track not in {line.track for line in bias.lines}:
        return "passed, but not in the bias" if item.strength >= 1 else "no"
    if item.track in (OWN_TOKEN, LAST_TOKEN):
        return "default of heads left over"
    if item.strength >= 1:
        return "chosen"
    return "chosen, heads take turns" if item.turns >= 1 else "added to have more lines"


def account(maps: Maps, bias: CalibratedBias) -> list[Finding]:
    """The lines of a bias, and the best that are not in it, each with what spoke for it."""
    evidence = evidence_of(maps)
    used = {line.track for line in bias.lines}
    chosen = [item for item in evidence if item.track in used]
    others = sorted(
        (item for item in evidence if item.track not in used),
        key=lambda item: (-item.strength, -item.need),
    )
    tried = [item.track for item in others if item.strength > 0][:_TRIED]
    findings = []
    for item in chosen:
        instead = ()
        if item.track != OWN_TOKEN:
            instead = tuple(t for t in tried if _suffices(maps, bias, item.track, t))
        findings.append(Finding(item, fate_of(item, bias), instead))
    return findings + [Finding(item, fate_of(item, bias)) for item in others[:_OTHERS]]


def _suffices(maps: Maps, bias: CalibratedBias, without: Track, other: Track) -> bool:
    if isinstance(maps, SheetMaps):
        task = maps.format.task
        tracks = [t for t in cone_of_sheet(task, bias, maps.layers) if t != without]
        return near_of(other, task) is not None and tell_apart(task, [*tracks, other])
    lines = [
        line if line.track != without else Line(other, line.head, line.layer) for line in bias.lines
    ]
    return contexts_of(maps, CalibratedBias(bias.format, bias.heads, lines)).suffice()


def describe(maps: Maps, bias: CalibratedBias) -> list[str]:
    """The account in sentences; of lines that do not tell every symbol, two problems that show it."""
    if isinstance(maps, SheetMaps):
        return _describe_sheet(maps, bias)
    try:
        contexts = contexts_of(maps, bias)
        findings: Iterable[Finding] = account(maps, bias)
    except NotApplicableError:  # lines through whole matrices say nothing of columns
        return []
    told = [f"  {finding}" for finding in findings]
    if isinstance(contexts, KnownContexts):
        if contexts.suffice():
            return [*told, "Together the lines tell every symbol of the problems that are known."]
        return [*told, "The lines do not tell every symbol of the problems that are known."]
    pair = look_alikes(contexts)
    if pair is None:
        return [*told, "Together the lines tell every symbol that must be written."]
    first, second = pair
    return [
        *told,
        f"The lines do not tell every symbol: in column {first.column} of {first.problem} and in column "
        f"{second.column} of {second.problem} a query sees the same ({first.seen}), but must write "
        f"{first.writes} and {second.writes}.",
    ]


def _describe_sheet(maps: SheetMaps, bias: CalibratedBias) -> list[str]:
    try:
        tracks = cone_of_sheet(maps.format.task, bias, maps.layers)
        sights = contexts_along(maps.format.task, tracks).sights
        told = [f"  {finding}" for finding in account(maps, bias)]
    except NotApplicableError as error:
        return [f"  {error}"]
    if not sights.unclear:
        return [*told, "Together the lines tell every symbol that must be written."]
    case, wanted = next(iter(sights.unclear.items()))
    texts = " or ".join(maps.format.task.tokens[token] for token in wanted)
    return [
        *told,
        f"The lines do not tell every symbol: a query that sees {sights.words(case)} must write {texts}.",
    ]
