"""Which lines are enough, by evidence as models showed it (docs/log.md, 2026-11-26)."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch

from lengthwise.bias import SITES, Site, Track
from lengthwise.calibration import Evidence, auto, calibrate, gather_evidence, suffices
from lengthwise.calibration.account import account, left_alone, unusual
from lengthwise.calibration.line_sets import fewest, select
from lengthwise.calibration.maps import AttentionMaps, candidates
from lengthwise.problems.format import Format

# Base 2, seed 6: what a line gets of one head, of the head that reads it best in each row, and its need.
BY_TURNS = [
    ("answer[c-2]", -0.024, -0.005, 2.799),
    ("a[c+1]", -0.019, 0.006, 0.100),
    ("a[c-1]", -0.021, 0.177, 5.469),
    ("b[c-1]", -0.023, 0.146, 9.184),
    ("b[c]", -0.026, 0.423, 61.128),
    ("+", -0.027, 0.074, 5.056),
    ("a[c]", -0.029, 0.364, 53.928),
]
FOUR = {"a[c]", "b[c]", "a[c-1]", "b[c-1]"}
BUDGET = 50_000_000


def maps_of(name: str, base: int, layers: int = 2) -> AttentionMaps:
    """Maps whose numbers say nothing: what is read is given as evidence."""
    format = Format(name, base=base)
    layout = format.at(7)
    random = torch.Generator().manual_seed(0)
    weights: dict[Site, torch.Tensor] = {
        site: torch.rand(layers, 4, 8, layout.keys(site), generator=random) for site in SITES
    }
    return AttentionMaps(format, 6, 7, 8, weights, 1.0, dict.fromkeys(candidates(layout, 6), 0.0))


def selected(maps: AttentionMaps, shown, budget: int = BUDGET) -> set[str]:
    """The tracks chosen of evidence: texts with support, support by turns and need."""
    evidence = [
        Evidence(Track.parse(text), support, need, (0.0,) * 4, by_turns)
        for text, support, by_turns, need in shown
    ]
    evidence.sort(key=lambda item: -item.strength)
    return {str(item.track) for item in select(evidence, partial(auto._seen, maps), budget)}


def test_what_heads_read_by_turns_is_read():
    """No head reads a digit in every row, but in every row some head does; the symbol tells nothing."""
    assert selected(maps_of("addition", 2), BY_TURNS) == FOUR


# Base 2, seed 3 (docs/log.md, 2026-11-27): lines that pass tell every symbol with one more, by a detour.
DETOUR = [
    ("+", 0.971, 0.971, 26.76),
    ("b[c+1]", 0.197, 0.2, 0.21),
    ("a[c+1]", 0.121, 0.121, 0.33),
    ("a[c]", 0.039, 0.16, 42.35),
    ("b[c]", 0.032, 0.15, 45.05),
    ("answer[c-2]", -0.044, 0.0, 3.36),
    ("answer[c-3]", -0.054, 0.0, 2.23),
    ("a[c-1]", -0.029, 0.1, 3.57),
    ("b[c-1]", -0.031, 0.1, 3.15),
]


@pytest.mark.parametrize("shown", [True, False])
def test_lines_that_each_query_reads_itself(monkeypatch, shown):
    evidence = [
        Evidence(Track.parse(text), support, need, (0.0,) * 4, by_turns)
        for text, support, by_turns, need in DETOUR
        if shown or text != "b[c-1]"
    ]
    monkeypatch.setattr(auto, "gather_evidence", lambda maps: evidence)
    maps = maps_of("addition", 2)
    assert {"answer[c-3]", "a[c+1]"} < selected(maps, DETOUR)
    bias = auto.choose_direct(maps)
    if not shown:  # none is made up
        assert bias is None
        return
    assert bias is not None
    assert {str(line.track) for line in bias.lines} == {*FOUR, "answer[c-1]"}
    assert suffices(maps, bias)


def test_more_lines_than_three_may_hide():
    """All four by what closing them costs; with few contexts, not by way of the symbol written before."""
    hidden = [(text, support, -0.01, need) for text, support, _, need in BY_TURNS]
    assert selected(maps_of("addition", 2), hidden) == FOUR


@pytest.mark.parametrize("missing", sorted(FOUR - {"a[c-1]", "b[c-1]"}))
def test_no_line_without_evidence(missing):
    """A digit that the model can do without is not read, whatever the task says."""
    shown = [
        (text, support, by_turns, 0.04 if text == missing else need)
        for text, support, by_turns, need in BY_TURNS
    ]
    assert missing not in selected(
        maps_of("addition", 2), [(t, s, -0.01, n) for t, s, _, n in shown]
    )


def test_lines_that_pass_and_suffice_are_not_asked_what_others_read_by_turns():
    plain = [(text, 0.5, 0.5, 5.0) for text in FOUR]
    turns = [("a[c+1]", -0.01, 0.6, 9.0), ("answer[c-2]", 0.1, 0.9, 9.0)]
    assert selected(maps_of("addition", 10), [*plain, *turns]) == FOUR


# Base 16, seed 5: the digit of a in the column before hardly matters, for the carry comes by the answer.
BY_ANSWER = [
    ("b[c]", 0.997, 0.997, 155.733),
    ("a[c]", 0.995, 0.995, 153.513),
    ("a[c-1]", 0.778, 0.8, 0.080),
    ("answer[c-2]", 0.646, 0.646, 24.408),
    ("a[c+1]", 0.155, 0.155, 0.001),
    ("-", -0.043, -0.043, 0.274),
]


def test_where_a_proof_would_be_too_long_faint_lines_take_the_place_of_the_answer():
    maps = maps_of("subtraction", 16)
    assert selected(maps, BY_ANSWER) == {"a[c]", "b[c]", "answer[c-2]"}
    faint = [*BY_ANSWER, ("b[c-1]", -0.01, 0.01, 0.06)]
    assert selected(maps, faint) == FOUR
    # Not where the proof is short enough.
    assert selected(maps, faint, budget=10**12) == {"a[c]", "b[c]", "answer[c-2]"}


def test_of_lines_that_did_not_pass_those_that_tell_nothing_go():
    maps = maps_of("addition", 10)
    strong = [Evidence(Track.parse(text), 0.5, 5.0, (0.0,) * 4) for text in sorted(FOUR)]
    for support, kept in ((0.5, 5), (-0.1, 4)):
        symbol = Evidence(Track.parse("+"), support, 5.0, (0.0,) * 4)
        assert len(fewest([*strong, symbol], partial(auto._seen, maps))) == kept


def back_in(bias, text: str = "answer[c-2]") -> set[int | None]:
    return {line.layer for line in bias.lines if str(line.track) == text}


@pytest.mark.parametrize("layers", [2, 3])
def test_a_line_to_the_answer_is_left_to_one_layer_where_the_proof_would_be_too_long(layers):
    maps = maps_of("subtraction", 16, layers)
    chosen = [
        Evidence(Track.parse(t), 0.5, 5.0, (0.0,) * 4) for t in ("a[c]", "b[c]", "answer[c-2]")
    ]
    bias = auto.lines_of(maps, chosen)
    bound = auto.contexts_of(maps, bias).bound()
    # Within the budget nothing changes.
    assert auto._within(maps, chosen, bias, bound) == bias
    assert back_in(bias) == {None}
    moved = auto._within(maps, chosen, bias, bound - 1)
    assert back_in(moved) == {layers - 1}
    contexts = auto.contexts_of(maps, moved)
    assert contexts.suffice()
    assert contexts.bound() == 4_145_152 < bound
    # In the first layer what stands there is a symbol, which does not tell the carry.
    first = auto.lines_of(maps, chosen, {Track.parse("answer[c-2]"): 0})
    assert not auto.contexts_of(maps, first).suffice()
    # Every head reads something in every layer.
    for layer in range(layers):
        own = {
            line.head for line in moved.lines if line.site == "self" and line.layer in (None, layer)
        }
        assert own == {0, 1, 2, 3}


def test_a_line_that_one_layer_can_do_nothing_with_stays():
    """With one layer, or where the lines leave a case open anyway."""
    for layers, texts in ((1, ("a[c]", "b[c]", "answer[c-2]")), (2, ("a[c]", "answer[c-2]"))):
        maps = maps_of("subtraction", 16, layers)
        chosen = [Evidence(Track.parse(text), 0.5, 5.0, (0.0,) * 4) for text in texts]
        bias = auto.lines_of(maps, chosen)
        assert auto._within(maps, chosen, bias, 1) == bias


def test_how_lines_were_found_is_told():
    """Of those that did not simply pass: what heads read by turns, and what is left to one layer."""
    maps = maps_of("addition", 10)
    length, layout = maps.length, maps.layout
    for site, weights in maps.weights.items():
        rows = (
            torch.arange(1.0, weights.shape[2] + 1)[:, None] if site == "self" else weights.shape[3]
        )
        weights[:] = 1 / rows
    for place, text in enumerate(sorted(FOUR)):
        track = Track.parse(text)
        for row in range(length + 1):  # in even rows one head, in odd ones another
            (key,), (inside,) = track.keys(layout, torch.tensor([row]))
            if inside:
                maps.weights["cross"][row % 2, place, row, key] += 0.4
    needed = {track: 5.0 * (str(track) in FOUR) for track in maps.knockout}
    maps = dataclasses.replace(maps, knockout=needed)
    assert all(item.support <= 0 for item in gather_evidence(maps) if str(item.track) in FOUR)
    bias = calibrate(maps)
    assert bias is not None
    assert {str(line.track) for line in bias.lines} == {*FOUR, "answer[c-1]"}
    told = unusual(maps, bias)
    assert len(told) == 4
    assert told[0].endswith(
        "heads take turns at it (support 0.43, of one head 0.00), closing it costs 5.00 nats"
    )
    assert str(account(maps, bias)[0]).startswith(
        "a[c-1]: chosen, heads take turns (support 0.00 (0.43 by turns), need 5.00 nats)"
    )
    # Of lines that pass nothing is told.
    plain = planted_everywhere(maps)
    assert unusual(plain, calibrate(plain)) == []


def planted_everywhere(maps: AttentionMaps) -> AttentionMaps:
    """Maps in which every head that takes turns reads in all rows."""
    cross = maps.weights["cross"].amax(dim=0, keepdim=True).expand(2, -1, -1, -1)
    return dataclasses.replace(maps, weights={**maps.weights, "cross": cross})


def test_a_line_left_to_one_layer_is_told_with_what_it_saves():
    maps = maps_of("subtraction", 16)
    chosen = [
        Evidence(Track.parse(t), 0.5, 5.0, (0.0,) * 4) for t in ("a[c]", "b[c]", "answer[c-2]")
    ]
    bias = auto.lines_of(maps, chosen)
    assert left_alone(bias) == {}
    moved = auto._within(maps, chosen, bias, BUDGET)
    assert left_alone(moved) == {Track.parse("answer[c-2]"): 1}
    assert unusual(maps, moved)[-1] == (
        "answer[c-2] is read in layer 1 alone: 4,145,152 local contexts; in all layers 128,557,824, too "
        "many to prove"
    )
