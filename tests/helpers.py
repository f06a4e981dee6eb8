"""What several test files share: a task with a fixed digit, random biases, untrained models, contexts."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from lengthwise.bias import SITES, WHOLE, CalibratedBias, Line, MatrixTrack, Track
from lengthwise.decoding.greedy import greedy_decode
from lengthwise.evaluation.exact_match import exact_matches
from lengthwise.locality import Contexts
from lengthwise.model import Transformer
from lengthwise.problems.layout import Layout, Vocabulary
from lengthwise.problems.sampling import generator, suite_problems
from lengthwise.proof import Cone, Counterexample
from lengthwise.runs.folder import BIAS, CERTIFICATE, RULE, WEIGHTS
from lengthwise.runs.run import Run
from lengthwise.tasks import TASKS, Segment, Transducer

# Of every bias that `biases` draws, and of every model that `make_untrained` makes.
HEADS, LAYERS = 3, 2

DIRECTIONS = ("diagonal", "anti-diagonal", "vertical", "everywhere")
SEGMENTS = {"successor": ("a",), "addition": ("a", "+", "b"), "nx1": ("a", "*", "d")}


class Multiple(Transducer):
    """a times one digit d: `0123*6` is 738. An operand that does not grow, and ten states."""

    name = "multiple"
    segments = (Segment("a", "operand"), Segment("*", "symbol"), Segment("d", "digit"))
    states = 10
    growth = 1
    example = ("12*3", "36")

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return divmod(column[0] * column[1] + state, self.base)


@st.composite
def lines_for(draw, task: str, everywhere: bool, local: bool) -> Line:
    """Any line that fits a task: at either site, crossing others, on or off the matrix."""
    site = draw(st.sampled_from(SITES))
    own, offset = ("answer",) if site == "self" else SEGMENTS[task], draw(st.integers(-4, 4))
    if local or draw(st.booleans()):
        segment = draw(st.sampled_from(own))
        moves = segment in ("a", "b", "answer")
        track = Track.along(segment, offset) if moves else Track(segment)
    else:
        directions = DIRECTIONS if everywhere else DIRECTIONS[:3]
        direction = draw(st.sampled_from(directions))
        track = MatrixTrack(site, direction, offset, draw(st.sampled_from((*own, WHOLE))))
    return Line(
        track,
        layer=draw(st.sampled_from((None, *range(LAYERS)))),
        head=draw(st.integers(0, HEADS - 1)),
        value=draw(st.sampled_from((0.0, 0.0, -1.5, 2.0, -0.25))),
    )


@st.composite
def biases(draw, *, everywhere: bool = True, local: bool = False, most: int = 10) -> CalibratedBias:
    """A bias of up to `most` lines; without `everywhere` it has a lines path, `local` it has windows."""
    task = draw(st.sampled_from(sorted(SEGMENTS)))
    lines = draw(st.lists(lines_for(task, everywhere, local), max_size=most))
    return CalibratedBias(task, HEADS, lines)


def make_untrained(task: str, seed: int = 0, positions: str = "sinusoidal") -> Transformer:
    """A small model in evaluation mode; all its parameters are random, norms and offsets too."""
    torch.manual_seed(seed)
    definition = TASKS[task]()
    model = Transformer(
        len(Vocabulary(definition.base, definition.symbols)),
        width=12,
        heads=HEADS,
        layers=LAYERS,
        feed_forward=20,
        positions=positions,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def random_batch(layout: Layout, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Source and target tokens of random problems at a layout's width."""
    rng = np.random.default_rng(seed)
    shape = (count, len(layout.task.operands), layout.width)
    return layout.batch(rng.integers(0, layout.task.base, shape, np.uint8))


# Bases that keep enumerations small; 3 for the others.
SMALL = {"nx1": 4, "parity": 2, "multi_addition": 2, "multiply_by": 2}
LOCAL = sorted(name for name, task in TASKS.items() if task.writes is None)


def altered(
    run: Run, *, bias: CalibratedBias | None = None, noise: float = 0.0, seed: int = 0
) -> Run:
    """The run with another bias, or with its weights disturbed; the original stays as it is."""
    copy = Run(run.path, run.config, bias or run.bias)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in copy.model.parameters():
            weight += noise * weight.std().nan_to_num() * torch.randn(weight.shape, generator=rng)
    return copy


def carry_problems(run, length):
    """Hard problems of a run's task, and their layout."""
    layout, rng = run.layout(length), generator(0, "test")
    operands = suite_problems(
        *(run.task, rng, 200), suite="carry", length=length, width=layout.width, split="any"
    )
    return layout, operands


def half_trained(run, length):
    """A run whose model gets some of the problems right and some wrong: its weights, disturbed more and
    more until it does.
    """
    layout, operands = carry_problems(run, length)
    for step in range(60):
        copy = type(run)(run.path, run.config, run.bias)
        rng = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for weight in copy.model.parameters():
                size = 0.05 * 1.1**step * weight.std().nan_to_num()
                weight += size * torch.randn(weight.shape, generator=rng)
        right, _ = exact_matches(copy, layout, operands)
        if 0 < right.float().mean() < 1:
            return copy
    raise AssertionError("no disturbance makes the model sometimes wrong")


def context_of(task: Transducer, cone: Cone, operands: np.ndarray, row: int) -> tuple:
    """What one row sees, by the definition of the cone: tokens of rows, digits of columns, ends, phase."""
    answer = task.answer(operands[None])[0]
    width = operands.shape[1]
    names = [segment.name for segment in task.operands]
    fixed = [operands[i, 0] for i, s in enumerate(task.operands) if s.kind == "digit"]
    tokens = []
    reads = []
    for track in cone.reads:
        if track.segment == "answer":
            column = row + track.offset
            tokens.append(None if column < -1 else "^" if column < 0 else int(answer[column]))
        elif track.place:
            column = row + track.offset
            inside = 0 <= column < width
            reads.append(int(operands[names.index(track.segment), column]) if inside else None)
    writes = "$" if row == width else int(answer[row])
    phase = row % cone.period, width % cone.period
    return tuple(map(int, fixed)), tuple(tokens), tuple(reads), writes, phase


def random_problems(
    task: Transducer, rng: np.random.Generator, count: int, width: int
) -> np.ndarray:
    """Problems of a task `[problem, operand, column]`, least significant digit first."""
    digits = rng.integers(0, task.base, (count, len(task.operands), width), np.uint8)
    digits[:, :, width - task.growth :] = 0
    for index, segment in enumerate(task.operands):
        if segment.kind == "digit":
            digits[:, index] = rng.integers(0, task.base, (count, 1))
    return task.admit(digits)


@st.composite
def cones(draw, task: Transducer, period: int) -> Cone:
    """Any cone of a task."""
    grows = [segment.name for segment in task.operands if segment.grows]
    rows = {0, *draw(st.lists(st.integers(-2, 0), max_size=2))}
    reads = st.sets(st.tuples(st.sampled_from(grows), st.integers(-2, 1)), max_size=5 - period)
    return make_cone(rows, draw(reads), period=period)


def make_cone(rows, reads, constants=(), period: int = 1) -> Cone:
    """A cone of the tokens of some rows, some (operand, column), and some operands of one digit."""
    tokens = [f"answer[c{row - 1:+d}]" for row in rows]
    tokens += [f"{name}[c{column:+d}]" for name, column in reads]
    return Cone(tuple(sorted(map(Track.parse, (*tokens, *constants)))), period)


def assert_none_is_missed(task: Transducer, period: int, data: st.DataObject) -> None:
    """Contexts of random problems under a random cone are among those that `Contexts` enumerates."""
    cone = data.draw(cones(task, period))
    contexts = Contexts(task, cone)
    known, count = set(), 0
    for batch in contexts:
        count += len(batch.operands)
        for operands in batch.operands[:: max(1, len(batch.operands) // 3000)]:
            assert operands.shape[1] > task.growth
        known |= {context_of(task, cone, operands, batch.row) for operands in batch.operands}
    assert len(known) <= count <= contexts.bound()
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    for width in (*(task.growth + more for more in (1, 2, 3, 4, 6)), 11, 12):
        for operands in random_problems(task, rng, 12, width):
            for row in range(width + 1):
                assert context_of(task, cone, operands, row) in known


def all_right(run: Run, widths: range) -> bool:
    """Greedy decoding of every problem of these widths, one after the other."""
    task, right = run.task, True
    for width in widths:
        digits = itertools.product(
            range(task.base), repeat=len(task.operands) * (width - task.growth)
        )
        problems = np.array(list(digits), np.uint8).reshape(
            -1, len(task.operands), width - task.growth
        )
        problems = np.concatenate(
            [problems, np.zeros((*problems.shape[:2], task.growth), np.uint8)], axis=2
        )
        layout = run.config.layout(width)
        source, target = layout.batch(problems)
        written = greedy_decode(run.model, run.bias, layout, source)
        right = right and bool((written == target[:, 1:]).all())
    return right


def assert_confirmed(run: Run, result: Counterexample) -> None:
    """Decode the counterexample here, from its text alone."""
    task = run.task
    parts = result.problem.split(task.symbols[0]) if task.symbols else [result.problem]
    width = max(map(len, parts)) + task.growth
    digits = np.zeros((1, len(parts), width), np.uint8)
    for index, part in enumerate(parts):
        digits[0, index, : len(part)] = [int(c, 36) for c in reversed(part)]
    layout = run.config.layout(width)
    source, target = layout.batch(digits)
    written = greedy_decode(run.model, run.bias, layout, source)[0]
    assert layout.text(written) == result.given
    assert layout.text(target[0, 1:]) == result.expected
    assert result.given != result.expected
    assert result.given[: result.row] == result.expected[: result.row]
    assert result.given[result.row] != result.expected[result.row]


def rehash(run: Run) -> None:
    """Write the hashes of what a run's folder holds now into its certificate."""
    path = run.path / CERTIFICATE
    values = json.loads(path.read_text())
    for name, file in (("weights", WEIGHTS), ("bias", BIAS), ("rule", RULE)):
        values["hashes"][name] = hashlib.sha256((run.path / file).read_bytes()).hexdigest()
    path.write_text(json.dumps(values))


def load_tool(name: str):
    """A program of `tools` as a module."""
    path = Path(__file__).parents[1] / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
