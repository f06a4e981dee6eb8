"""Models of a person's own are captured: plain torch models, and what can't be."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lengthwise as lw
from lengthwise.bias import CalibratedBias, Line
from lengthwise.calibration.maps import capture_problems
from lengthwise.errors import InputError
from lengthwise.own_models.adapter import Adapter
from lengthwise.own_models.plain import Plain
from lengthwise.own_models.tokens import Tokens
from lengthwise.problems.sampling import generator
from lengthwise.tasks import TASKS
from own_model_samples import (
    ADDITION,
    HEADS,
    IDS,
    LAYERS,
    Fused,
    PlainGPT,
    PlainPair,
    causal,
    seeded,
    state_of,
)


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


class Required(PlainGPT):
    def forward(self, ids, bias, positions, return_attention):
        return super().forward(ids, bias, positions, return_attention)


class Uneven(PlainGPT):
    def forward(self, ids, bias=None, positions=True, return_attention=False):
        logits, maps = super().forward(ids, bias, positions, return_attention=True)
        return (logits, [maps[0], maps[1][:, :2]]) if return_attention else logits


class Last(PlainGPT):
    def forward(self, ids, bias=None, positions=True, return_attention=False):
        logits, maps = super().forward(ids, bias, positions, return_attention=True)
        return (logits[:, -1], maps) if return_attention else logits[:, -1]


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (Required, {}, "Required.forward must take ids alone, or with them any of bias=None"),
        (Uneven, {}, r"Uneven returned attention of shape \(2, 2, 17, 17\); it must be"),
        (
            Last,
            {},
            r"Last must return logits \[problem, token, id\], here \[2, 6\] and more than 14 ids",
        ),
        (PlainGPT, {"tokens": {**IDS, "0": 99}}, "an id past its vocabulary"),
        (
            lambda: nn.DataParallel(PlainGPT()),
            {},
            "is a wrapper; pass the model in it, model.module",
        ),
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
