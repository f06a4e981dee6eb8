"""Position schemes that are classes, each against its authors' definition, and how ids reach a model."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lengthwise import api
from lengthwise.decoding.greedy import cut, decode_with_cache
from lengthwise.errors import InputError
from lengthwise.methods import Abacus, Coupling, Positions, Randomized
from lengthwise.model import plan_attention
from lengthwise.model.sheets import sheet_logits
from lengthwise.problems.layout import Layout, digits_of
from lengthwise.problems.sampling import generator
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size
from lengthwise.problems.tokens import axes_of, extent_of, source_tokens, target_tokens
from lengthwise.runs.parts import make_bias, make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.tasks import make_task
from lengthwise.training.batches import draw_positions

ADDITION = make_task("addition")
MULTIPLICATION = make_task("multiplication")


def ids_of(scheme: Positions, layout, problem: list[str], drawn=None):
    """Text and ids, of the source and of what rows read: a pair of lists for each level."""
    digits = digits_of(layout.task, problem, layout.width)
    source, target = layout.batch(digits)
    drawn = scheme.fixed(extent_of(layout)) if drawn is None else drawn
    parts = source_tokens(layout), target_tokens(layout, target[:, :-1])
    found = [scheme.ids(tokens, drawn) for tokens in parts]
    assert all(len(ids) == scheme.levels(axes_of(layout.task)) for ids in found)
    texts = layout.text(source[0]), layout.text(target[0, :-1])
    return texts, [[ids[level, 0].tolist() for ids in found] for level in range(len(found[0]))]


# --- position coupling ---


def coupled(a: str, b: str, label: str, start: int) -> tuple[list[int], list[int]]:
    """Ids of `a+b=label`, the label reversed, as the authors' data set for addition gives them.

    Operands have as many digits as the longer; ids of their digits end before that of the symbol behind
    them, as those of the label do, as it is read.
    """
    end = start + max(len(a), len(b)) + 1
    operands = [list(range(end - len(part), end + 1)) for part in (a, b)]
    return [*operands[0], *operands[1]], list(range(end - len(label), end))[::-1]


@given(a=st.integers(0, 999_999), b=st.integers(0, 999_999), start=st.integers(1, 100))
def test_coupling_is_the_first_papers(a, b, start):
    width = max(len(str(a)), len(str(b))) + 1
    (source, read), [(own, target)] = ids_of(
        Coupling(direction="down"),
        Layout(ADDITION, width),
        [str(a), str(b)],
        torch.tensor([[start]]),
    )
    padded = [str(n).zfill(width - 1) for n in (a, b)]
    before, label = coupled(*padded, str(a + b).zfill(width), start)
    assert source == f"0{padded[0]}+0{padded[1]}"
    # Our operands have one zero more, which stands with the answer's first digit.
    assert own == [label[-1], *before[:width], label[-1], *before[width:-1]]
    # The start token is their `=`; the last token that is read is the answer's last.
    assert target == [before[-1], *label]
    assert read[1:] == str(a + b).zfill(width)[::-1]


def test_the_first_papers_example():
    """`$653+049=2070$` with start 1: 653 are 2, 3, 4, + is 5, and 2070 are 4, 3, 2, 1."""
    assert coupled("653", "049", "0702", 1) == ([2, 3, 4, 5, 2, 3, 4, 5], [4, 3, 2, 1])
    texts, [(source, target)] = ids_of(
        Coupling(direction="down"), Layout(ADDITION, 4), ["653", "49"]
    )
    assert texts == ("0653+0049", "^2070")
    assert source == [1, 2, 3, 4, 5, 1, 2, 3, 4]
    assert target == [5, 4, 3, 2, 1]


def test_coupling_upwards_is_its_mirror():
    _, [(source, target)] = ids_of(Coupling(), Layout(ADDITION, 4), ["653", "49"])
    assert source == [5, 4, 3, 2, 1, 5, 4, 3, 2]
    assert target == [1, 2, 3, 4, 5]
    # However the operands lie, digits of one column have one id.
    interleaved = Layout(ADDITION, 4, "interleaved", "reversed")
    _, [(source, _)] = ids_of(Coupling(), interleaved, ["653", "49"])
    assert source == [1, 2, 2, 3, 3, 4, 4, 5, 5]


def scratchpad_levels(a: str, rows: list[str], operand: str, starts: tuple[int, int]):
    """Ids of `a*operand=row;row;...` along columns and rows, as the second paper's data set gives them.

    Numbers of the sheet are written least significant digit first, each with the separator before it.
    """
    column, row = starts
    along = [list(range(column + 1, column + 1 + len(a)))[::-1] + [0] * (len(operand) + 1), []]
    across = [[0] * (len(a) + 1) + list(range(row, row + len(operand)))[::-1], []]
    for number, text in enumerate(rows):
        along[1] += range(column, column + len(text) + 1)
        across[1] += [row + number] * (len(text) + 1)
    return along, across


@given(
    a=st.integers(0, 9999),
    b=st.integers(0, 9999),
    column=st.integers(1, 90),
    row=st.integers(1, 90),
)
def test_coupling_of_sheets_is_the_second_papers(a, b, column, row):
    layout = SheetLayout(MULTIPLICATION, Size(len(str(a)), len(str(b))))
    # With them row 0 has the first id; columns begin with the separator.
    drawn = torch.tensor([[row - 1, column]])
    (source, read), [(own_rows, rows), (own, columns)] = ids_of(
        Coupling(), layout, [str(a), str(b)], drawn
    )
    cells = [part.split() for part in read.split(" ", 1)[1].split(" ; ")]
    written = [
        "".join(part[::2]).removesuffix(";") for part in cells
    ]  # a digit and a carry to each cell
    along, across = scratchpad_levels(f"0{a}", [w for w in written if w], str(b), (column, row))
    assert source.replace(" ", "") == f"0{a}*{b}"
    assert (own, own_rows) == (along[0], across[0])
    # Two tokens to a cell have one place; and the last separator, after which the end is written, is in no
    # number of theirs.
    twice = [0, *np.repeat(np.arange(1, len(written[0]) + 1), 2)]
    last = len(str(b)) * len(twice)
    assert columns[:last] == [column + k for _ in str(b) for k in twice]
    assert sorted(set(columns)) == sorted(set(along[1]))
    assert rows[:last] == [row + k for k in range(len(str(b))) for _ in twice]
    assert sorted(set(rows[:last])) == sorted(set(across[1]))


# --- Abacus ---


def abacus(text: str, shift: int = 0) -> list[int]:
    """The authors' definition: digits count from 1 on in their number, as it is written; others are 0."""
    found = []
    for character in text:
        last = found[-1] if found else 0
        found.append((last + 1) if character.isdigit() else 0)
    return [number + shift if number else 0 for number in found]


@given(a=st.integers(0, 999_999), b=st.integers(0, 999_999), shift=st.integers(0, 99))
def test_abacus_is_its_authors(a, b, shift):
    width = max(len(str(a)), len(str(b))) + 1
    layout = Layout(ADDITION, width, input_order="reversed")
    texts, [found] = ids_of(Abacus(), layout, [str(a), str(b)], torch.tensor([[shift]]))
    assert found == [abacus(text, shift) for text in texts]


def test_abacus_counts_from_the_least_digit_however_it_is_written():
    _, [(source, target)] = ids_of(Abacus(), Layout(ADDITION, 4), ["653", "49"])
    assert source == [4, 3, 2, 1, 0, 4, 3, 2, 1]
    assert target == [0, 1, 2, 3, 4]
    sheet = SheetLayout(MULTIPLICATION, Size(2, 2))
    (_, read), [(source, target)] = ids_of(Abacus(), sheet, ["12", "34"])
    assert source == [3, 2, 1, 0, 2, 1]
    one = [0, 1, 1, 2, 2, 3, 3]
    assert target == [*one, *one, 0][: len(target)]
    assert read.split()[7] == ";"


# --- randomized positions ---


@given(width=st.integers(1, 30), seed=st.integers(0, 50))
def test_randomized_ids_are_an_ordered_sample(width, seed):
    layout, scheme = Layout(ADDITION, width), Randomized(max_position=300)
    drawn = scheme.draw(np.random.default_rng(seed), 4, extent_of(layout))
    _, [(source, target)] = ids_of(scheme, layout, ["3", "4"], drawn)
    ids = source + target
    assert len(ids) == layout.source_length + layout.target_length
    assert all(first < second for first, second in pairwise(ids))  # none twice
    assert ids[0] >= 0
    assert ids[-1] < 300


def test_every_id_is_as_likely():
    scheme, extent = Randomized(max_position=40), extent_of(Layout(ADDITION, 4))
    counts = torch.zeros(40)
    for seed in range(500):
        counts[scheme.draw(np.random.default_rng(seed), 1, extent)[0]] += 1
    wanted = 500 * extent.tokens / 40
    assert (counts - wanted).abs().max() < 5 * (500 * 0.25) ** 0.5


# --- what is drawn ---


@pytest.mark.parametrize("scheme", [Coupling(max_position=30), Abacus(max_shift=9), Randomized()])
def test_what_is_drawn_depends_on_seed_and_step_alone(scheme):
    config = make_config({}, ["task=addition", "training.batch_size=64", "seed=3"])
    layout = config.layout()
    first = draw_positions(scheme, config, 7, layout)
    assert torch.equal(first, draw_positions(scheme, config, 7, layout))
    assert first.shape[0] == 64
    others = [draw_positions(scheme, config, step, layout) for step in range(8, 12)]
    assert not all(torch.equal(first, other) for other in others)
    again = make_config({}, ["task=addition", "training.batch_size=64", "seed=4"])
    those = [draw_positions(scheme, again, step, layout) for step in range(8, 12)]
    assert not all(map(torch.equal, others, those))


def test_starts_of_coupling_keep_problems_within_the_table():
    layout, scheme = Layout(ADDITION, 7), Coupling(max_position=12)
    drawn = scheme.draw(generator(0, "positions"), 4000, extent_of(layout))
    # As in their code: from 1 to max_position - digits - 1, digits being one less than our width.
    assert set(drawn.flatten().tolist()) == set(range(1, 12 - 6))
    parts = source_tokens(layout), target_tokens(layout, torch.zeros(1, 8, dtype=torch.int64))
    assert max(int(scheme.ids(tokens, drawn).max()) for tokens in parts) == 12
    assert scheme.reaches(extent_of(Layout(ADDITION, 11)))
    assert not scheme.reaches(extent_of(Layout(ADDITION, 12)))


# --- in a model ---

SMALL = ["model.width=12", "model.heads=3", "model.feed_forward=20", "device=cpu"]
SCHEMES = [
    ["model.positions=coupling"],
    ["model.positions=abacus"],
    ["model.positions=randomized"],
    ["model.positions=randomized", "positions.under=rope"],
    ["model.positions=randomized", "positions.under=learned"],
]


@pytest.mark.trains
@pytest.mark.parametrize("scheme", SCHEMES, ids=" ".join)
@pytest.mark.parametrize("task", ["multiplication", "division", "turing_machine"])
@torch.inference_mode()
def test_sheets_are_decoded_as_they_are_read(task, scheme):
    """Coordinates follow from what is written: token by token as all at once, of problems side by side."""
    config = make_config({}, [f"task={task}", *SMALL, *scheme])
    torch.manual_seed(0)
    model, bias = make_model(config).eval(), make_bias(config)
    layout = config.layout(Size(2, 2))
    rng = np.random.default_rng(0)
    from lengthwise.problems.sheet_sampling import training_sheets

    operands = training_sheets(layout.task, rng, 3, size=layout.size, large=0.3, split="any")
    source, target = layout.batch(operands)
    rows = target.shape[1] - 1
    plan = plan_attention(bias, layout, 2, queries=range(rows))
    whole = sheet_logits(model, bias, layout, source, target, plan, 2)
    view, read = model.begin(source, rows, plan), target[:, :-1].clamp(min=0)
    for row in range(rows):
        logits = model.step(read[:, row], row, view, [cut(sites, row) for sites in plan])
        written = target[:, row] >= 0
        torch.testing.assert_close(logits[written], whole[written, row], atol=1e-4, rtol=1e-4)
    found = decode_with_cache(model, bias, layout, source)
    assert found.shape == (3, layout.target_length)


def test_ids_tell_a_model_where_digits_are():
    """Without them a model that sees everything can't tell the digits of the source apart."""
    for scheme, knows in (("none", False), ("coupling", True), ("abacus", True)):
        config = make_config({}, ["task=addition", *SMALL, f"model.positions={scheme}"])
        torch.manual_seed(0)
        model, layout = make_model(config).eval(), config.layout()
        one, two = (layout.batch(digits_of(layout.task, [a, "0"], 7)) for a in ("12", "21"))
        plan = plan_attention(make_bias(config), layout, 2)
        first, second = (model(source, one[1][:, :-1], plan).logits for source, _ in (one, two))
        assert torch.allclose(first, second, atol=1e-5) != knows


def settings(method: str, **training) -> list[str]:
    values = {
        "batch_size": 16,
        "evaluate_every": 5,
        "until": "max_steps",
        "max_steps": 10,
        **training,
    }
    values |= {"validation_problems": 16, "exact_match": 0, "loss": 100}
    return [*SMALL, "data.length=3", *(f"training.{key}={value}" for key, value in values.items())]


@pytest.mark.trains
@pytest.mark.parametrize("task", ["addition", "multiplication"])
@pytest.mark.parametrize("method", ["coupling", "abacus", "randomized"])
def test_a_resumed_training_is_the_same(task, method, tmp_path):
    whole = api.train(task, method=method, out=tmp_path / "whole", set=settings(method))
    part = settings(method, max_steps=5)
    api.train(task, method=method, out=tmp_path / "part", set=part)
    again = api.train(task, out=tmp_path / "part", resume=True, set=["training.max_steps=10"])
    assert again.method == method
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, again.model.state_dict()[name]), name
    assert [row["loss"] for row in whole.metrics()] == [row["loss"] for row in again.metrics()]
    assert Run.open(tmp_path / "part").config.positions == whole.config.positions


def test_ids_that_fall_are_refused_on_sheets(tmp_path):
    with pytest.raises(InputError, match="direction 'down' is of problems of one row"):
        api.train(
            "multiplication",
            method=Coupling(direction="down"),
            out=tmp_path / "run",
            set=settings("coupling"),
        )
    assert not (tmp_path / "run").exists()


def test_problems_past_the_last_id_are_wrong(tmp_path):
    config = make_config(
        {}, ["task=addition", *SMALL, "model.positions=coupling", "positions.max_position=9"]
    )
    run = Run.create(tmp_path, config, None)
    run.save_model(make_model(config))
    from lengthwise.api.analysis import evaluate

    scores = evaluate(Run.open(tmp_path), [7, 8], samples=4, suites=["uniform"]).scores
    assert [score.worst_loss == 1e6 for score in scores] == [False, True]
    with pytest.raises(
        ValueError, match=r"more places than the coupling positions .* have ids: 10"
    ):
        run.solve("1" * 8 + "+1")
