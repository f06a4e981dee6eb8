"""A bias in a person's own model, and the model as it was before: plain torch models."""

import copy
import pickle

import pytest
import torch
from torch import nn

import lengthwise as lw
from lengthwise.bias import CalibratedBias, Causal, Line
from lengthwise.errors import InputError
from own_model_samples import (
    ADDITION,
    HEADS,
    IDS,
    LAYERS,
    Fused,
    PlainGPT,
    PlainPair,
    TorchGPT,
    drawn,
    expected_in_one_sequence,
    lines_of_addition,
    seeded,
    state_of,
)


@pytest.mark.parametrize("width", [2, 5, 60])
def test_in_one_sequence_the_bias_counts_at_every_width_and_positions_are_off(width):
    model, bias = seeded(PlainGPT), lines_of_addition()
    source, target = drawn(width)
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
    source, target = drawn(width)
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
    before, ids = state_of(model), torch.cat(drawn(3), dim=1)
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
    before, ids = state_of(model), torch.cat(drawn(3), dim=1)
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
    source, target = drawn(3)
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        model(torch.cat([source, target[:, :-1]], dim=1))[:, 7:].sum().backward()
    assert model.wpe.weight.grad is None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.blocks.parameters())


def test_positions_are_off_by_their_module_and_its_table_does_not_end():
    model, (source, target) = seeded(PlainGPT), drawn(30)
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
            PlainGPT,
            lines_of_addition(),
            {"positions": nn.Embedding(40, 16)},
            "positions names a Embedding that is no part of PlainGPT",
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
    model, ids = seeded(PlainGPT), torch.cat(drawn(3), dim=1)
    lines_of_addition().save(tmp_path / "bias.jsonl")
    with lw.apply(copy.deepcopy(model), lines_of_addition(), tokens=IDS) as applied:
        wanted = applied.model(ids)
    with lw.apply(model, tmp_path / "bias.jsonl", tokens=IDS):
        assert torch.equal(model(ids), wanted)


def test_positions_are_not_all_of_the_model():
    model = seeded(PlainGPT)
    before = state_of(model)
    with pytest.raises(InputError, match="positions names all of PlainGPT; name the part of it"):
        lw.apply(model, lines_of_addition(), tokens=IDS, positions=model)
    assert state_of(model) == before


def test_arguments_in_any_order_and_by_place():
    model, ids = seeded(PlainGPT), torch.cat(drawn(3), dim=1)
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        wanted = model(ids)
        assert torch.equal(model(positions=True, ids=ids), wanted)
        assert torch.equal(model(ids, None, True), wanted)
        assert torch.equal(model(ids, return_attention=True)[0], wanted)


def test_what_was_removed_is_not_entered_again():
    with lw.apply(seeded(PlainGPT), lines_of_addition(), tokens=IDS) as applied:
        pass
    with pytest.raises(InputError, match="was removed from PlainGPT; apply it again"), applied:
        pass


@pytest.mark.parametrize("make", [PlainGPT, TorchGPT])
def test_a_deep_copy_is_under_the_bias_by_itself(make):
    model, ids = seeded(make), torch.cat(drawn(3), dim=1)
    plain = model(ids)
    applied = lw.apply(model, lines_of_addition(), tokens=IDS, positions=model.wpe)
    wanted, copied = model(ids), copy.deepcopy(model)
    applied.remove()
    assert torch.equal(copied(ids), wanted)
    assert torch.equal(model(ids), plain)
    with torch.no_grad():
        copied.wpe.weight.add_(1)
    assert torch.equal(copied(ids), wanted)  # its own table is off


@pytest.mark.parametrize("make", [PlainGPT, TorchGPT])
def test_a_model_under_a_bias_is_not_pickled(make):
    model = seeded(make)
    with (
        lw.apply(model, lines_of_addition(), tokens=IDS, positions=model.wpe),
        pytest.raises(InputError, match="can't be pickled while a bias is applied to it; remove"),
    ):
        pickle.dumps(model)
    pickle.dumps(model)


@pytest.mark.trains
def test_compiled_models_follow_the_bias_at_every_width():
    model = seeded(PlainGPT)
    compiled = torch.compile(model, backend="eager")
    with pytest.raises(InputError, match=r"is a wrapper; pass the model in it, model\._orig_mod"):
        lw.apply(compiled, lines_of_addition(), tokens=IDS)
    with lw.apply(model, lines_of_addition(), tokens=IDS), torch.no_grad():
        for width in (3, 5, 4, 3):
            ids = torch.cat(drawn(width), dim=1)
            assert torch.allclose(compiled(ids), model(ids), atol=1e-6)
