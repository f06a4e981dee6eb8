"""Biases that are classes, each against its authors' formula, written out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import random_batch
from lengthwise.bias import BIASES, Fire, HardAlibi, KerpleLog, KerplePower, OfMethod
from lengthwise.bias.base import sequence_distances
from lengthwise.model import plan_attention
from lengthwise.problems.layout import Layout
from lengthwise.runs.parts import make_bias, make_model
from lengthwise.settings.config import InputError, make_config
from lengthwise.tasks import make_task

HEADS = 3
LAYOUT = Layout(make_task("addition"), 4)
SMALL = ["task=addition", "model.width=12", f"model.heads={HEADS}", "model.feed_forward=20"]
LEARNED = [KerpleLog(), KerplePower(), Fire(), Fire(hidden=4, rate=0.7, threshold=3.0)]


def in_one_sequence(site: str, query: int, key: int) -> tuple[int, int]:
    """The distance of a key from its query, and where the query stands; the problem comes first."""
    before = LAYOUT.source_length
    if site == "self":
        return query - key, before + query
    return (before + query - key, before + query) if site == "cross" else (query - key, query)


def module_of(method, site: str):
    """The method's bias, and its learned module with random weights."""
    bias = method.bias(HEADS)
    torch.manual_seed(1)
    module = bias.learned.make(HEADS, 12).requires_grad_(False)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.rand_like(parameter))
    queries = range(LAYOUT.source_length if site == "encoder" else LAYOUT.target_length)
    return module, bias.relative(site, LAYOUT, queries), queries


def fire(module, head: int, distance: int, position: int) -> float:
    """f(log(c d + 1) / log(c max(i, L) + 1)), f one hidden layer with a rectifier."""
    c, threshold = float(module.rate), float(module.threshold) * module.first_threshold
    x = math.log(c * distance + 1) / (math.log(c * max(position, threshold) + 1) + 1e-6)
    inner, out = module.hidden, module.out
    hidden = [
        max(0.0, float(w) * x + float(b))
        for w, b in zip(inner.weight[:, 0], inner.bias, strict=True)
    ]
    return sum(float(w) * h for w, h in zip(out.weight[head], hidden, strict=True)) + float(
        out.bias[head]
    )


def kerple(module, head: int, distance: int, logarithmic: bool) -> float:
    r1, r2 = float(module.slope[head]), float(module.inner[head])
    return -r1 * math.log(1 + r2 * distance) if logarithmic else -r1 * distance ** min(r2, 2.0)


@pytest.mark.parametrize("site", ["self", "cross", "encoder"])
@pytest.mark.parametrize("method", LEARNED, ids=str)
def test_learned_biases_are_their_formulas(method, site):
    module, index, queries = module_of(method, site)
    found = module(index, torch.zeros(1, HEADS, len(queries), 4))
    keys = LAYOUT.keys("cross" if site == "encoder" else site)
    assert found.shape == (HEADS, len(queries), keys)
    wanted = torch.zeros(HEADS, len(queries), keys)
    for head in range(HEADS):
        for query in queries:
            for key in range(keys):
                distance, position = in_one_sequence(site, query, key)
                if site == "encoder":  # without a direction
                    distance, position = abs(distance), max(query, key)
                distance = abs(distance)  # a later key is closed
                wanted[head, query, key] = (
                    fire(module, head, distance, position)
                    if isinstance(method, Fire)
                    else kerple(module, head, distance, isinstance(method, KerpleLog))
                )
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n, b in BIASES.items() if isinstance(b, OfMethod)])
def test_what_is_learned_is_of_each_head_layer_and_site_and_gets_gradients(name):
    config = make_config({}, [*SMALL, "model.positions=none", f"model.bias={name}"])
    torch.manual_seed(0)
    model = make_model(config)
    own = {key: p for key, p in model.named_parameters() if key.startswith("tables.")}
    if name == "hard_alibi":
        assert not own
        return
    assert {key.split(".")[1] for key in own} == {"self", "cross"}
    assert {key.split(".")[2] for key in own} == {"0", "1"}
    source, target = random_batch(LAYOUT, 20)
    logits = model(source, target[:, :-1], plan_attention(make_bias(config), LAYOUT, 2)).logits
    (logits * torch.randn_like(logits)).sum().backward()
    for key, parameter in own.items():
        # A softmax does not feel what is added to all keys alike.
        assert parameter.grad is not None
        assert parameter.grad.any() or key.endswith("out.bias"), key
        if name.startswith("kerple"):
            assert (parameter.grad != 0).all(), key  # of every head


def test_distances_are_those_of_one_sequence():
    for site in ("self", "cross", "encoder"):
        queries = range(2, 5)
        found = sequence_distances(site, LAYOUT, queries)
        for row, query in enumerate(queries):
            for key in range(found.shape[1]):
                assert found[row, key] == in_one_sequence(site, query, key)[0]


@pytest.mark.parametrize("masked", [1, 2])
def test_hard_alibi_is_its_definition(masked):
    """Head m of the masked ones: keys j with i - m < j <= i are open; of the others all up to i."""
    bias = HardAlibi(masked=masked).bias(HEADS)
    for site in ("self", "cross"):
        dense = bias.dense(site, 0, LAYOUT, range(LAYOUT.target_length))
        for head in range(HEADS):
            window = head + 1 if head < masked else 10**9
            for query in range(LAYOUT.target_length):
                for key in range(LAYOUT.keys(site)):
                    distance, _ = in_one_sequence(site, query, key)
                    is_open = 0 <= distance < window
                    assert dense[head, query, key] == (0.0 if is_open else -math.inf)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["model.bias=fire", "bias.hidden=x"],
            "bias.hidden: input should be a valid integer, got 'x'",
        ),
        (["model.bias=fire", "bias.rate=-1"], "bias of fire: rate and threshold must be above 0"),
        (["model.bias=fire", "bias.hiden=3"], "bias] 'hiden'; did you mean 'hidden'?"),
        (["model.bias=kerple_log", "bias.a=1"], "bias.a: kerple_log has no settings"),
        (["model.bias=alibi", "bias.a=1"], "bias.a: alibi has no settings in [bias]"),
        (
            ["model.positions=coupling", "positions.max_position=0"],
            "max_position must be at least 1",
        ),
        (
            ["model.positions=coupling", "positions.direction=left"],
            "positions.direction: input should",
        ),
        (
            ["positions.max_shift=3"],
            "positions.max_shift: sinusoidal has no settings in [positions]",
        ),
        (["retraining.positions=abacus"], "retraining.positions can't be 'abacus'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(assignments, message):
    with pytest.raises(InputError) as caught:
        make_config({}, assignments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_masked_heads_than_heads_are_refused():
    config = make_config({}, [*SMALL, "model.bias=hard_alibi", "bias.masked=3"])
    with pytest.raises(InputError, match=r"bias.masked must be below model.heads, got 3 and 3"):
        make_bias(config)


def test_settings_of_methods_are_kept_where_there_are_some():
    config = make_config({}, ["model.bias=fire", "bias.hidden=8", "model.positions=none"])
    assert make_config(config.model_dump(mode="json")) == config
    assert config.model_dump()["bias"] == {"hidden": 8, "rate": 0.1, "threshold": 512.0}
    assert config.model_dump(exclude_unset=True)["bias"] == {"hidden": 8}
    assert config.for_retraining().model_dump().keys() == make_config({}).model_dump().keys()
    # Files of runs without any are as they were.
    assert not {"positions", "bias"} & make_config({}).model_dump().keys()
