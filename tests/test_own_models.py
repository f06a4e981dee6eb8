"""Models of a person's own: ids, the bias as tensors, capture and apply, on plain torch models."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import lengthwise as lw
from lengthwise.bias import CalibratedBias, Causal, Line
from lengthwise.calibration.maps import capture_problems
from lengthwise.errors import InputError
from lengthwise.own_models.adapter import Adapter
from lengthwise.own_models.plain import Plain
from lengthwise.own_models.reading import Reading
from lengthwise.own_models.tokens import Tokens
from lengthwise.problems.sampling import generator, suite_problems
from lengthwise.tasks import TASKS
from own_model_samples import (
    HEADS,
    IDS,
    LAYERS,
    SIZE,
    PlainGPT,
    PlainPair,
    causal,
    lines_of_addition,
)

ADDITION = lw.Format("addition")


def batch(width, count=3, tokens=IDS):
    """Ids of problems of `width` - 1 digits: sources and what the model reads of the answers."""
    layout, known = ADDITION.at(width), Tokens(ADDITION, tokens)
    operands = suite_problems(
        layout.task,
        generator(0, "test"),
        count,
        suite="uniform",
        length=width - 1,
        width=width,
        split="any",
    )
    source, target = layout.batch(operands)
    return known.of(source), known.of(target)


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


def state_of(model):
    """All that hooks, marks and overridden methods could change."""
    return [
        (name, dict(part._forward_hooks), dict(part._forward_pre_hooks), "forward" in vars(part))
        for name, part in model.named_modules()
    ] + [sorted(vars(model))]


# --- ids ---


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
        ({**IDS, "1": 3}, "two digits the same id"),
        (7, "tokens takes an id for each character"),
    ],
)
def test_ids_that_can_not_be_used(tokens, says):
    with pytest.raises(
        InputError, match=says.replace("+", r"\+").replace("^", r"\^").replace("$", r"\$")
    ):
        Tokens(ADDITION, tokens)


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


# --- the bias as tensors ---


def expected_in_one_sequence(width, queries):
    """A slow loop over text: which keys each head of `lines_of_addition` may read."""
    plus, start = width, 2 * width + 1
    found = torch.zeros(HEADS, queries, queries, dtype=torch.bool)
    for query in range(queries):
        for head in range(HEADS):
            column = query - start - (head >= 2)
            if query < start:
                key = query
            elif 0 <= column < width:
                key = width - 1 - column + (width + 1) * (head % 2)
            else:
                key = plus
            found[head, query, key] = True
    return found


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


# --- capture ---


@pytest.mark.parametrize("make", [PlainGPT, PlainPair])
def test_maps_are_the_mean_of_the_models_own_weights(make):
    model = seeded(make)
    before = state_of(model)
    model.train()
    maps = lw.capture(model, "addition", length=4, tokens=IDS, problems=8)
    assert model.training
    assert state_of(model) == before
    assert len(maps.weights["self"]) == LAYERS
    assert maps.width == 5
    operands = capture_problems(ADDITION.at(5), generator(0, "capture"), 8, 4, "any")
    source, target = (Tokens(ADDITION, IDS).of(one) for one in ADDITION.at(5).batch(operands))
    pair = (
        (source, target[:, :-1]) if make is PlainPair else (torch.cat([source, target[:, :-1]], 1),)
    )
    _, weights = model(*pair, return_attention=True)
    for layer, one in enumerate(weights):
        if make is PlainGPT:
            one = {"cross": one[:, :, 11:, :11], "self": one[:, :, 11:, 11:]}
        for site in ("self", "cross"):
            assert torch.allclose(maps.weights[site][layer], one[site].mean(0), atol=1e-6)


def test_need_is_the_loss_of_answers_when_their_queries_can_not_read_a_line():
    model = seeded(PlainGPT)
    maps = lw.capture(model, "addition", length=4, tokens=IDS, problems=8)
    operands = capture_problems(ADDITION.at(5), generator(0, "capture"), 8, 4, "any")
    source, target = (Tokens(ADDITION, IDS).of(one) for one in ADDITION.at(5).batch(operands))
    ids = torch.cat([source, target], dim=1)

    def loss(mask):
        logits = model(ids[:, :-1], bias=[mask] * LAYERS)[:, 11:]
        return (
            F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), reduction="sum").item()
            / 8
        )

    closed = causal(17)
    for row in range(1, 6):
        closed[11 + row, 4 - (row - 1)] = -torch.inf  # a[c-1]
    needs = {str(track): need for track, need in maps.knockout.items()}
    assert needs["a[c-1]"] == pytest.approx(loss(closed) - loss(causal(17)), abs=1e-4)
    assert abs(needs["a[c-1]"]) > 1e-3


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"parity_classification"}))
@pytest.mark.parametrize("frame", ["none", "tokens"])
def test_every_task_of_one_row_is_captured_and_applied(name, frame):
    form = lw.Format(name, frame=frame)
    torch.manual_seed(0)
    model = PlainGPT(100).eval()
    maps = lw.capture(model, form, length=3, problems=2)
    assert maps.format == form
    assert all(math.isfinite(need) for need in maps.knockout.values())
    lines = [Line(track, head % HEADS) for head, track in enumerate(maps.knockout)]
    layout = form.at(30)
    operands = capture_problems(layout, generator(0, "test"), 2, 30 - form.task.growth, "any")
    with lw.apply(model, CalibratedBias(form, HEADS, lines)), torch.no_grad():
        assert model(torch.cat(layout.batch(operands), dim=1)).isfinite().all()


class Silent(PlainGPT):
    def forward(self, ids, bias=None, positions=True, return_attention=False):
        return super().forward(ids, bias, positions)


class Blended(PlainGPT):
    def forward(self, ids, bias=None, positions=True, return_attention=False):
        logits, maps = super().forward(ids, bias, positions, return_attention=True)
        return (logits, [one.mean(1) for one in maps]) if return_attention else logits


class Deaf(PlainGPT):
    def forward(self, ids, bias=None, positions=True, return_attention=False):
        return super().forward(ids, None, positions, return_attention)


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(SIZE, SIZE)

    def forward(self, ids):
        x = self.wte(ids)[:, None]
        return F.scaled_dot_product_attention(x, x, x, is_causal=True)[:, 0]


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (Fused, {}, "Fused is no model that lengthwise knows how to read: its forward needs"),
        (Silent, {}, "Silent must return logits and a list of each layer's weights"),
        (
            Blended,
            {},
            r"Blended must return weights \[problem, head, query, key\] of each layer; got \[1, ",
        ),
        (Deaf, {}, "layer 0 of Deaf attends to keys that the bias closes"),
        (PlainGPT, {"format": None}, "say what it was trained on"),
        (PlainGPT, {"length": None}, "say what it was trained on"),
        (PlainGPT, {"length": 0}, "length takes a whole number from 1 up"),
        (PlainGPT, {"width": 4}, "width takes a whole number from 5 up"),
        (PlainGPT, {"format": "adition"}, "did you mean 'addition'"),
        (PlainGPT, {"format": "multiplication"}, "multiplication is written on sheets"),
        (PlainGPT, {"length": 40}, "past the end of its table of positions"),
        (PlainGPT, {"tokens": {**IDS, "9": 99}}, "an id past its vocabulary"),
    ],
)
def test_models_that_can_not_be_captured_stay_as_they_were(make, options, says):
    model = seeded(make)
    before = state_of(model)
    given = {"format": "addition", "length": 4, "tokens": IDS, "problems": 4, **options}
    with pytest.raises(InputError, match=says) as raised:
        lw.capture(model, given.pop("format"), **given)
    assert "\n" not in str(raised.value)
    assert state_of(model) == before


def test_a_run_knows_its_own_format():
    with pytest.raises(InputError, match="are of models of your own"):
        lw.capture("runs/addition", "addition", length=5)


def test_an_adapter_of_ones_own_is_taken():
    class Mine(Plain):
        pass

    known = Tokens(ADDITION, IDS)
    adapter = Mine(seeded(PlainGPT), known)
    assert isinstance(adapter, Adapter)
    maps = lw.capture(adapter, "addition", length=4, tokens=IDS, problems=4)
    assert maps.weights["cross"].shape == (LAYERS, HEADS, 6, 11)


# --- apply ---


@pytest.mark.parametrize("width", [2, 5, 60])
def test_in_one_sequence_the_bias_counts_at_every_width_and_positions_are_off(width):
    model, bias = seeded(PlainGPT), lines_of_addition()
    source, target = batch(width)
    ids = torch.cat([source, target], dim=1)
    mask = torch.zeros(HEADS, ids.shape[1], ids.shape[1])
    mask[~expected_in_one_sequence(width, ids.shape[1])] = -torch.inf
    wanted = model(ids, bias=[mask] * LAYERS, positions=False)
    with lw.apply(model, bias, tokens=IDS) as applied:
        assert torch.equal(model(ids), wanted)
        assert torch.equal(model(ids=ids), wanted)
    assert "no longer in PlainGPT" in repr(applied)


@pytest.mark.parametrize("width", [2, 30])
def test_source_and_target_each_have_their_bias(width):
    model, bias = seeded(PlainPair), lines_of_addition()
    source, target = batch(width)
    layout = ADDITION.at(width)
    cross = bias.dense("cross", 0, layout, range(width + 1))
    cross[..., width].masked_fill_((cross == -torch.inf).all(-1), 0)
    own = bias.dense("self", 0, layout, range(width + 1))
    wanted = model(
        source, target[:, :-1], [{"self": own, "cross": cross}] * LAYERS, positions=False
    )
    with lw.apply(model, bias, tokens=IDS):
        assert torch.allclose(model(source, target[:, :-1]), wanted, atol=1e-6)


def test_an_error_within_takes_the_bias_back_too():
    model = seeded(PlainGPT)
    before, ids = state_of(model), torch.cat(batch(3), dim=1)
    first = model(ids)

    def fail():
        with lw.apply(model, lines_of_addition(), tokens=IDS):
            assert not torch.equal(model(ids), first)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert state_of(model) == before
    assert torch.equal(model(ids), first)


def test_without_with_it_stays_until_it_is_removed():
    model = seeded(PlainGPT)
    before, ids = state_of(model), torch.cat(batch(3), dim=1)
    applied = lw.apply(model, lines_of_addition(), tokens=IDS)
    within = model(ids)
    with pytest.raises(InputError, match="PlainGPT has a bias already; remove it first"):
        lw.apply(model, lines_of_addition(), tokens=IDS)
    with pytest.raises(InputError, match="PlainGPT has a bias already; remove it first"):
        lw.capture(model, "addition", length=4, tokens=IDS)
    assert torch.equal(model(ids), within)
    applied.remove()
    applied.remove()
    assert state_of(model) == before


def test_a_model_learns_under_the_bias():
    model = seeded(PlainGPT).train()
    source, target = batch(3)
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        model(torch.cat([source, target[:, :-1]], dim=1))[:, 7:].sum().backward()
    assert model.wpe.weight.grad is None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.blocks.parameters())


def test_positions_are_off_by_their_module_and_its_table_does_not_end():
    model, (source, target) = seeded(PlainGPT), batch(30)
    before, ids = state_of(model), torch.cat([source, target], dim=1)
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        wanted = model(ids)
    with lw.apply(model, lines_of_addition(), tokens=IDS, positions=model.wpe):
        assert torch.equal(model(ids), wanted)
    with (
        lw.apply(model, lines_of_addition(), tokens=IDS, positions="on"),
        pytest.raises(IndexError),
    ):
        model(ids)
    assert state_of(model) == before


class WithoutSwitch(PlainGPT):
    def forward(self, ids, bias=None, return_attention=False):
        return super().forward(ids, bias, True, return_attention)


@pytest.mark.parametrize(
    ("make", "bias", "options", "says"),
    [
        (PlainGPT, lines_of_addition(8), {}, "the bias has 8 heads, the model 4"),
        (
            PlainGPT,
            CalibratedBias("addition", 4, [Line("a[c]", 0, 7)]),
            {},
            "names layer 7, but the model has 2",
        ),
        (PlainGPT, Causal(4), {}, "bias takes what lw.calibrate returns"),
        (
            PlainGPT,
            lines_of_addition(),
            {"positions": "of"},
            "positions takes 'off', 'on', or the module",
        ),
        (
            PlainGPT,
            lines_of_addition(),
            {"positions": [1]},
            "positions takes 'off', 'on', or the module",
        ),
        (
            WithoutSwitch,
            lines_of_addition(),
            {},
            "forward has no argument positions; name the module",
        ),
        (Fused, lines_of_addition(), {}, "Fused is no model that lengthwise knows"),
        (
            PlainGPT,
            CalibratedBias("multiplication", 4, []),
            {},
            "written on sheets; lines of one row fit",
        ),
    ],
)
def test_a_bias_that_does_not_fit_leaves_the_model_as_it_was(make, bias, options, says):
    model = seeded(make)
    before = state_of(model)
    with pytest.raises(InputError, match=says) as raised:
        lw.apply(model, bias, tokens=IDS, **options)
    assert "\n" not in str(raised.value)
    assert state_of(model) == before


def test_a_saved_bias_is_applied_by_its_path(tmp_path):
    model, ids = seeded(PlainGPT), torch.cat(batch(3), dim=1)
    lines_of_addition().save(tmp_path / "bias.jsonl")
    with lw.apply(copy.deepcopy(model), lines_of_addition(), tokens=IDS) as applied:
        wanted = applied.model(ids)
    with lw.apply(model, tmp_path / "bias.jsonl", tokens=IDS):
        assert torch.equal(model(ids), wanted)
