"""Fixed matrices: laid onto layouts digit by digit, closed where they must be, traced back to lines."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import save_file

from helpers import HEADS, LAYERS, biases, make_untrained, random_batch
from lengthwise.bias import CLOSED, SITES, Line, MatrixBias, Track, trace_lines
from lengthwise.bias.matrix import find_spans
from lengthwise.model import plan_attention
from lengthwise.problems.layout import Layout
from lengthwise.proof import NotApplicableError, receptive_cone
from lengthwise.settings.config import make_config
from lengthwise.tasks import TASKS, add_frame
from seed_helpers import windows


def framed(task: str, width: int) -> Layout:
    return Layout(add_frame(TASKS[task]()), width)


@pytest.mark.parametrize(
    ("task", "width", "keys", "spans"),
    [
        (
            "addition",
            61,
            125,
            {"^": (0, 1), "a": (1, 62), "+": (62, 63), "b": (63, 124), "$": (124, 125)},
        ),
        ("addition", 4, 9, {"a": (0, 4), "+": (4, 5), "b": (5, 9)}),
        # Sums of even length there: the first operand is one digit narrower.
        ("addition", 4, 10, {"^": (0, 1), "a": (1, 4), "+": (4, 5), "b": (5, 9), "$": (9, 10)}),
        ("successor", 8, 10, {"^": (0, 1), "a": (1, 9), "$": (9, 10)}),
        # Products there: two digits narrower, so that the source is as long as the answer.
        ("nx1", 8, 10, {"^": (0, 1), "a": (1, 7), "*": (7, 8), "d": (8, 9), "$": (9, 10)}),
    ],
)
def test_shapes_say_where_the_segments_lie(task, width, keys, spans):
    assert find_spans(TASKS[task](), width, keys) == spans
    assert find_spans(add_frame(TASKS[task]()), width, keys) == spans


@given(st.integers(1, 12), st.integers(0, 3), st.integers(0, 10))
def test_narrower_problems_find_the_cells_of_wider_ones(width, layer, seed):
    """Against a loop over rows and digits."""
    generator = torch.Generator().manual_seed(seed)
    cross = torch.randn(2, 13, 27, generator=generator)
    bias = MatrixBias(
        "addition", {"cross": cross, "self": torch.randn(2, 13, 13, generator=generator)}
    )
    for layout in (Layout(TASKS["addition"](), width), framed("addition", width)):
        dense = bias.dense("cross", layer, layout, range(width + 1))
        spans = layout.source_spans
        for row in range(width + 1):
            for digit in range(width):
                for name, last in (("a", 12), ("b", 25)):
                    key = spans[name].stop - 1 - digit
                    assert torch.equal(dense[:, row, key], cross[:, row, last - digit])
            assert torch.equal(dense[:, row, spans["+"].start], cross[:, row, 13])
            if "^" in spans:
                assert torch.equal(dense[:, row, 0], cross[:, row, 0])
                assert torch.equal(dense[:, row, -1], cross[:, row, 26])


@given(st.integers(1, 12), st.integers(0, 5))
def test_self_attention_is_causal_whatever_the_matrices_say(width, seed):
    own = torch.randn(2, 13, 13, generator=torch.Generator().manual_seed(seed))
    bias = MatrixBias("addition", {"self": own})
    dense = bias.dense("self", 0, framed("addition", width), range(width + 1))
    size = width + 1
    later = torch.ones(size, size).triu(1).bool()
    assert bool((dense[:, later] == CLOSED).all())
    assert torch.equal(dense[:, ~later], own[:, :size, :size][:, ~later])
    # The site that has no matrix is that of a vanilla model.
    assert not bias.dense("cross", 0, framed("addition", width), range(size)).any()


@pytest.mark.parametrize("value", [-1e6, -1e6 - 1, -1e9, float("-inf")])
def test_numbers_of_minus_a_million_and_below_close_a_key(value):
    cross = torch.zeros(1, 3, 3)
    cross[0, 1, 2] = value
    cross[0, 1, 1] = -999_999.0
    dense = MatrixBias("successor", {"cross": cross[..., :2]}).dense(
        "cross", 0, Layout(TASKS["successor"](), 2), range(3)
    )
    assert dense[0, 1, 1] == -999_999.0
    full = MatrixBias("copy", {"cross": torch.full((1, 3, 2), value)})
    assert full.open_keys("cross", 0, Layout(TASKS["copy"](), 2), range(3)).value.max() == CLOSED


def test_wider_problems_are_refused():
    cross, own = windows(5)
    bias = MatrixBias("addition", {"cross": cross, "self": own})
    with pytest.raises(ValueError, match="hold operands padded to 5 digits, but 6 were asked for"):
        bias.dense("cross", 0, framed("addition", 6), range(7))


@given(biases(), st.integers(3, 9))
def test_lines_and_their_matrices_add_the_same(lines, width):
    # Of N x 1, matrices of this size could as well be framed ones of the paper's code (`find_spans`).
    assume(lines.task != "nx1")
    layout = Layout(TASKS[lines.task](), width)
    rows = range(width + 1)
    matrices = {
        site: torch.stack([lines.dense(site, layer, layout, rows) for layer in range(LAYERS)])
        for site in SITES
    }
    bias = MatrixBias(lines.task, matrices)
    some = range(1, width)
    for site in SITES:
        for layer in range(LAYERS):
            dense = bias.dense(site, layer, layout, some)
            assert torch.equal(dense, lines.dense(site, layer, layout, some))
            listed = bias.open_keys(site, layer, layout, some)
            if listed is None:
                continue
            drawn = torch.full_like(dense, CLOSED)
            drawn.scatter_reduce_(-1, listed.index, listed.value, "amax")
            assert torch.equal(drawn, dense)


def test_both_attention_paths_read_the_same():
    cross, own = windows(6)
    bias = MatrixBias("addition", {"cross": cross[:HEADS], "self": own[:HEADS]})
    layout, model = Layout(TASKS["addition"](), 6), make_untrained("addition")
    source, target = random_batch(layout, 8)
    dense, lines = (
        model(source, target[:, :-1], plan_attention(bias, layout, LAYERS, path=path)).logits
        for path in ("dense", "lines")
    )
    torch.testing.assert_close(dense, lines, atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [4, 11, 61])
def test_tracing_finds_the_lines_that_were_drawn(width):
    cross, own = windows(width)
    traced = trace_lines(MatrixBias("addition", {"cross": cross, "self": own}))
    assert traced.exact
    drawn = MatrixBias("addition", {"cross": cross, "self": own})
    layout = Layout(TASKS["addition"](), width)
    inner = range(1, width)
    for site in SITES:
        assert torch.equal(
            traced.lines.dense(site, 0, layout, inner), drawn.dense(site, 0, layout, inner)
        )


def test_what_lies_off_the_lines_is_told():
    cross, own = windows(11)
    cross[2, 5, 7] = 1.0  # open where no line is
    cross[6, 4, 12 - 5] = -1e6  # a gap in a line, which is then no line
    traced = trace_lines(MatrixBias("addition", {"cross": cross, "self": own}))
    assert not traced.exact
    off = {rest.head for rest in traced.rest if not rest.edge}
    assert off == {2, 6}
    assert any(
        "head 2 of cross-attention: off every line" in text for text in traced.describe_rest()
    )


@pytest.mark.parametrize("width", [8, 11, 30])
def test_a_few_open_cells_in_a_corner_are_no_line(width):
    """Every open cell lies on some line; one is found where at least half of the rows are open along it."""
    half = -(-width // 2)
    for cells, is_line in ((1, False), (half - 1, False), (half, True)):
        cross = torch.full((1, width + 1, 2 * width + 1), CLOSED)
        own = torch.full((1, width + 1, width + 1), CLOSED)
        own[0].fill_diagonal_(0.0)
        for row in range(cells):
            # Of b the column `width - cells` further on than the one being written.
            cross[0, row, 2 * width - (width - cells) - row] = 0.0
        traced = trace_lines(MatrixBias("addition", {"cross": cross, "self": own}))
        found = [line.track for line in traced.lines.lines if line.site == "cross"]
        assert found == ([Track.along("b", width - half)] if is_line else [])
        assert traced.exact == is_line or cells == 1


def test_layers_may_have_matrices_of_their_own(tmp_path):
    cross = torch.randn(2, 3, 5, 4)
    bias = MatrixBias("copy", {"cross": cross})
    assert bias.layers == 2
    layout = Layout(TASKS["copy"](), 4)
    assert torch.equal(bias.dense("cross", 1, layout, range(5)), cross[1])
    with pytest.raises(ValueError, match="matrices for 2 layers, none for 2"):
        bias.dense("cross", 2, layout, range(5))
    bias.save(tmp_path / "b.safetensors")
    assert MatrixBias.load(tmp_path / "b.safetensors") == bias


def test_dense_matrices_that_calibrate_writes_can_be_read(tmp_path):
    from lengthwise.bias import CalibratedBias
    from lengthwise.bias.dense import save_dense

    lines = CalibratedBias("successor", 2, [Line("a[c]")])
    layout = Layout(TASKS["successor"](), 7)
    save_dense(tmp_path / "d.safetensors", lines, layout, 2)
    bias = MatrixBias.load(tmp_path / "d.safetensors", "successor")
    assert bias.layers is None
    assert torch.equal(
        bias.dense("cross", 1, layout, range(8)), lines.dense("cross", 1, layout, range(8))
    )
    with pytest.raises(ValueError, match="does not say the task"):
        MatrixBias.load(tmp_path / "d.safetensors")


def test_files_that_hold_something_else_are_refused(tmp_path):

    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="does not hold matrices"):
        MatrixBias.load(tmp_path / "x.safetensors", "copy")
    (tmp_path / "y.safetensors").write_text("no")
    with pytest.raises(ValueError, match="does not hold matrices"):
        MatrixBias.load(tmp_path / "y.safetensors", "copy")
    with pytest.raises(ValueError, match="at least one of them"):
        MatrixBias("copy", {})


def test_a_framed_source_is_the_problem_between_two_tokens():
    layout = framed("addition", 3)
    plain = Layout(TASKS["addition"](), 3)
    source, _ = random_batch(layout, 4)
    texts = [layout.text(row) for row in source]
    assert all(text[0] == "^" and text[-1] == "$" for text in texts)
    assert len(layout.vocabulary) == len(plain.vocabulary)
    assert torch.equal(source[:, 1:-1], random_batch(plain, 4)[0])
    assert layout.task.parse("12+3") == layout.task.parse("^12+3$") == ["12", "3"]
    assert layout.target_length == plain.target_length


def test_the_proof_needs_lines():
    bias = MatrixBias("copy", {"cross": torch.zeros(4, 3, 2)})
    config = make_config({"task": "copy", "model": {"positions": "none"}})
    with pytest.raises(NotApplicableError, match="fixed matrices, which end at their own width"):
        receptive_cone(config, bias)


@pytest.mark.parametrize("said", ['{"name": "addition"', "{}", '{"name":' * 3000])
def test_matrices_of_a_task_that_is_cut_off_name_their_file(tmp_path, said):
    path = tmp_path / "bias.safetensors"
    save_file(
        {"self": torch.zeros(1, 1, 3, 3)}, path, {"format": "lengthwise-matrices/1", "task": said}
    )
    with pytest.raises(ValueError, match=r"bias\.safetensors does not hold matrices: "):
        MatrixBias.load(path)
