"""Models of a person's own: their ids, and the bias as tensors of their attention."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lengthwise as lw
from lengthwise.bias import CalibratedBias, Line
from lengthwise.errors import InputError
from lengthwise.own_models.reading import Reading
from lengthwise.own_models.tokens import Tokens
from own_model_samples import (
    ADDITION,
    HEADS,
    IDS,
    LAYERS,
    drawn,
    expected_in_one_sequence,
    lines_of_addition,
)


@pytest.mark.parametrize("tokens", [IDS, IDS.__getitem__, lambda one: [IDS[one]]])
def test_ids_come_from_a_mapping_or_a_function(tokens):
    known = Tokens(ADDITION, tokens)
    source = ADDITION.at(2).source(torch.tensor([[[4, 1], [3, 0]]]).numpy())
    assert known.of(source).tolist() == [[4, 7, 13, 3, 6]]
    assert known.start == 14


@pytest.mark.parametrize("width", [1, 2, 7])
@pytest.mark.parametrize("frame", ["none", "tokens"])
def test_the_problem_ends_at_the_start_token(width, frame):
    form = lw.Format("addition", frame=frame)
    known, length = Tokens(form, IDS), form.at(width).source_length
    source = known.of(form.at(width).source(torch.zeros(2, 2, width, dtype=torch.int64).numpy()))
    ids = torch.cat([source, torch.full((2, 1), 14), torch.full((2, 3), 5)], dim=1)
    assert known.source_length(ids) == length
    assert known.width(length) == width


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ({**IDS, "+": "x"}, "tokens must give '+' one id"),
        ({**IDS, "7": [1, 2]}, "tokens must give '7' one id"),
        ({one: IDS[one] for one in "0123456789"}, "tokens names no id for '+', '^', '$'"),
        ({**IDS, "1": 3}, "tokens gives '0' and '1' the same id, 3; each needs one of its own"),
        ({**IDS, "+": 5}, "tokens gives '2' and '+' the same id, 5"),
        ({**IDS, "$": 5}, "tokens gives '2' and '$' the same id, 5"),
        ({}.__getitem__, "tokens gives no id for '0': "),
        (7, "tokens takes an id for each character"),
    ],
)
def test_ids_that_can_not_be_used(tokens, says):
    with pytest.raises(
        InputError, match=says.replace("+", r"\+").replace("^", r"\^").replace("$", r"\$")
    ):
        Tokens(ADDITION, tokens)


def test_ids_by_which_a_problem_can_not_be_told_from_its_answer():
    shared = {**IDS, "^": 13}
    Reading(lines_of_addition(), Tokens(ADDITION, shared), "encoder-decoder", HEADS, 1)
    with pytest.raises(InputError, match=r"tokens gives '\+' and '\^' the same id, 13"):
        Reading(lines_of_addition(), Tokens(ADDITION, shared), "decoder", HEADS, 1)
    ends = Tokens(ADDITION, {**IDS, "$": IDS["^"]})  # as many do
    Reading(lines_of_addition(), ends, "decoder", HEADS, 1)
    with pytest.raises(InputError, match="the same id"):
        Tokens(lw.Format("addition", frame="tokens"), {**IDS, "$": IDS["^"]})


def test_problems_of_another_task_are_told_by_their_ids():
    known = Tokens(lw.Format("successor"), IDS)
    source, target = drawn(3)
    with pytest.raises(InputError, match="problems of successor have no token of id 13"):
        known.source_length(torch.cat([source, target], dim=1))


def test_batches_that_can_not_be_read():
    known = Tokens(ADDITION, IDS)
    with pytest.raises(InputError, match=r"a problem of 6 tokens is none of addition.* 3, 5, 7"):
        known.width(6)
    with pytest.raises(InputError, match="lacks the token that ends the problem"):
        known.source_length(torch.full((2, 9), 5))
    ids = torch.full((2, 9), 5)
    ids[0, 3] = ids[1, 5] = 14
    with pytest.raises(InputError, match="padded to one width; they have from 3 to 5 tokens"):
        known.source_length(ids)


@pytest.mark.parametrize("width", [1, 2, 6, 40])
def test_in_one_sequence_each_head_reads_its_line_or_the_first_symbol(width):
    reading = Reading(lines_of_addition(), Tokens(ADDITION, IDS), "decoder", HEADS, LAYERS)
    total = 3 * width + 2 + 3  # with some tokens behind the end
    reading.begin(2 * width + 1)
    found = reading.at("self", 0, total, total)
    assert found is not None
    assert torch.equal(found == 0, expected_in_one_sequence(width, total))
    assert torch.equal(found == -torch.inf, found != 0)


def test_a_head_without_another_line_reads_its_own_token():
    bias = CalibratedBias("addition", 1, [Line("answer[c-1]", 0)])
    reading = Reading(bias, Tokens(ADDITION, IDS), "decoder", 1, 1)
    reading.begin(5)
    found = reading.at("self", 0, 8, 8)
    assert found is not None
    assert torch.equal(found[0] == 0, torch.eye(8, dtype=torch.bool))


tracks = st.sampled_from(
    ["a[c]", "a[c-1]", "a[c+1]", "b[c-2]", "b[c]", "+", "answer[c-1]", "answer[c-2]"]
)
SOME_LINES = st.lists(
    st.tuples(tracks, st.integers(0, 1), st.sampled_from([None, 0, 1])), max_size=6
)


@given(SOME_LINES, st.integers(1, 5), st.sampled_from(["decoder", "encoder-decoder"]))
def test_every_query_has_an_open_key_in_the_past_and_a_cache_changes_nothing(lines, width, kind):
    bias = CalibratedBias("addition", 2, [Line(*line) for line in lines])
    reading, layout = Reading(bias, Tokens(ADDITION, IDS), kind, 2, 2), ADDITION.at(width)
    source, rows = layout.source_length, layout.target_length + 2
    queries = source + rows if kind == "decoder" else rows
    for layer in range(2):
        reading.begin(source)
        whole = {"self": reading.at("self", layer, queries, queries)}
        if kind != "decoder":
            whole["cross"] = reading.at("cross", layer, queries, source)
        for site, found in whole.items():
            assert (found == 0).any(dim=-1).all()
            if site == "self":
                assert (found.triu(1)[:, *torch.triu_indices(queries, queries, 1)] < 0).all()
            for first in range(queries):
                reading.begin(source, first)
                keys = source if site == "cross" else first + 1
                part = reading.at(site, layer, 1, keys)
                assert torch.equal(part, found[:, first : first + 1, :keys])


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_large_matrices_are_made_row_by_row_and_are_the_same(kind, monkeypatch):
    whole = Reading(lines_of_addition(), Tokens(ADDITION, IDS), kind, HEADS, 1)
    rows = Reading(lines_of_addition(), Tokens(ADDITION, IDS), kind, HEADS, 1)
    for reading in (whole, rows):
        reading.begin(13, 5)
    first = whole.at("self", 0, 4, 9)
    monkeypatch.setattr("lengthwise.own_models.reading._KEPT", 0)
    assert torch.equal(rows.at("self", 0, 4, 9), first)


def test_problems_without_a_symbol():
    bias = CalibratedBias("successor", 1, [Line("a[c]", 0)])
    known = Tokens(lw.Format("successor"), IDS)
    reading = Reading(bias, known, "decoder", 1, 1)
    reading.begin(2)
    found = reading.at("self", 0, 5, 5)
    # Columns 0 and 1, then nothing: the token before the answer.
    assert found is not None
    assert [row.nonzero().tolist() for row in found[0, 2:] == 0] == [[[1]], [[0]], [[2]]]
    with pytest.raises(InputError, match=r"no symbol .* Format\('successor', frame='tokens'\)"):
        Reading(bias, known, "encoder-decoder", 1, 1)


def test_a_cache_that_lacks_tokens_is_refused():
    reading = Reading(lines_of_addition(), Tokens(ADDITION, IDS), "decoder", HEADS, LAYERS)
    reading.begin(11, 14)
    with pytest.raises(
        InputError, match="a cache kept 4 of 15 tokens, as those of a sliding window"
    ):
        reading.at("self", 0, 1, 4)
