"""Which of the lines that a model reads are enough: the fewest that tell every symbol.

Of tasks of one row; sheets have sets of their own (sheet_sets.py). Every line has evidence in the model:
attention shows it, or closing it costs. What the task's definition says is only which sets of such lines
leave nothing open, and how many contexts a row then sees.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from lengthwise.calibration.evidence import Evidence
from lengthwise.locality import Contexts, KnownContexts

# Nats a problem that closing a line costs a model that reads along it, however little attention shows it
# (docs/log.md, 2026-11-26, "A line that no query shows plainly"); and how many such lines may be missing,
# but for those that no set can do without.
NEEDED, _MISSING = 0.05, 3


class Seen(Protocol):
    """What a row sees that reads some tracks and its own token.

    They are dealt out to heads and layers; or read `everywhere`, in every layer: no row sees more of them.
    """

    def __call__(
        self, chosen: Sequence[Evidence], *, everywhere: bool = False
    ) -> Contexts | KnownContexts: ...


def select(evidence: list[Evidence], seen: Seen, budget: int) -> list[Evidence]:
    """The lines that a row needs, of those that the model reads.

    The first of these that tells every symbol:

    - the lines that pass, without those to spare; with as few more as it takes;
    - those and the lines that heads read by turns, likewise;
    - all that have any evidence, without those to spare.

    Where none does, the first. Where a row then sees more contexts than the budget, all that have evidence
    are tried without those to spare.

    Args:
        evidence: of every candidate, the strongest first.
        seen: what a row sees along some of them.
        budget: contexts that a proof may have at most.
    """
    passing = [item for item in evidence if item.strength >= 1]
    by_turns = [item for item in evidence if item.strength >= 1 or item.turns >= 1]
    chosen = fewest(enough(passing, evidence, seen), seen)
    if not _settled(chosen, seen):
        everything = [*by_turns, *others(evidence, by_turns)]
        wider = (fewest(more, seen) for more in (enough(by_turns, evidence, seen), everything))
        chosen = next((some for some in wider if _settled(some, seen)), chosen)
    if chosen and seen(chosen).bound() > budget:
        # What the model reads faintly may do instead of what makes a proof too long.
        chosen = fewest([*chosen, *others(evidence, chosen)], seen)
    return chosen


def _settled(chosen: Sequence[Evidence], seen: Seen) -> bool:
    return _reads_problem(chosen) and seen(chosen).suffice()


def _reads_problem(chosen: Sequence[Evidence]) -> bool:
    return any(item.track.site == "cross" for item in chosen)


def enough(chosen: list[Evidence], evidence: list[Evidence], seen: Seen) -> list[Evidence]:
    """The tracks, with as few more as it takes where they don't tell every symbol and with those do.

    A model interpolates with less: where what it reads leaves a case open that is rare in few digits, it
    goes by what it reads faintly. A retrained model reads its lines and nothing else, and would fail.
    Attention may be faint, or hidden in some query; what closing a line costs the model is evidence enough.
    Of sets that are equally small, of lines that are needed, the one with the fewest contexts is taken.
    """
    if not _reads_problem(chosen) or seen(chosen).suffice():
        return chosen

    def cost(more: tuple[Evidence, ...]) -> tuple[bool, int, float]:
        idle = any(item.need < NEEDED for item in more)
        return idle, seen([*chosen, *more]).bound(), -sum(item.need for item in more)

    rest = others(evidence, chosen)
    for needed, sets in _sets(chosen, rest, seen):
        found = [more for some in sets if seen([*chosen, *(more := (*needed, *some))]).suffice()]
        if found:
            return [*chosen, *min(found, key=cost)]
    return chosen


Some = tuple[Evidence, ...]


def _sets(
    chosen: list[Evidence], rest: list[Evidence], seen: Seen
) -> Iterator[tuple[Some, Iterable[Some]]]:
    """Sets of lines that may be enough, in addition to those chosen, the smallest first.

    Whoever sees more knows no less: a line without which even all others, read in every layer, leave a
    case open is in each set that is enough. A model of multi_addition with four numbers lacked four such
    lines, and to try all sets of three others took half a minute.

    Yields:
        Lines that are in each set, and the sets of others, all of the same size.
    """
    yield (), itertools.combinations(rest, 1)
    everything = [*chosen, *rest]
    if not seen(everything, everywhere=True).suffice():
        return
    needed = tuple(
        item
        for item in rest
        if not seen([one for one in everything if one != item], everywhere=True).suffice()
    )
    free = [item for item in rest if item not in needed]
    for count in range(max(2, len(needed)), max(_MISSING, len(needed)) + 1):
        yield needed, itertools.combinations(free, count - len(needed))


def others(evidence: list[Evidence], chosen: list[Evidence]) -> list[Evidence]:
    """Those not chosen that every query reads, in the order of strength; then those that some query
    hardly reads, but closing them costs something: the dearest first."""
    rest = [item for item in evidence if item not in chosen]
    hidden = [item for item in rest if item.strength <= 0 and item.need >= NEEDED]
    faint = [item for item in rest if item.strength > 0]
    return faint + sorted(hidden, key=lambda item: -item.need)


def fewest(chosen: list[Evidence], seen: Seen) -> list[Evidence]:
    """The tracks without those to spare: one at a time goes, the one that leaves the fewest contexts.

    A track is to spare when what the others read, with the row's own token, still tells every symbol, the
    end token too (`Contexts.suffice`: exactly, from the task's definition), and a row sees less without
    it, or as much if it did not pass. Where all tracks together don't tell every symbol, all stay. Of
    equals the weakest goes.
    """
    bound = seen(chosen).bound() if chosen else 0
    while True:
        found = []
        for place, item in enumerate(chosen):
            rest = chosen[:place] + chosen[place + 1 :]
            contexts = seen(rest)
            # Of lines that did not pass, those that tell nothing, as a symbol does, go as well.
            if contexts.bound() < bound + (item.strength < 1):
                found.append((contexts.bound(), item.strength, contexts, rest))
        found.sort(key=lambda one: one[:2])
        best = next((one for one in found if one[2].suffice()), None)
        if best is None:
            return chosen
        bound, _, _, chosen = best
