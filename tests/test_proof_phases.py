"""Proof where positions have a period: a row sees its number and the width modulo it besides."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import (
    LOCAL,
    SMALL,
    all_right,
    assert_confirmed,
    assert_none_is_missed,
    context_of,
    make_cone,
    random_problems,
)
from lengthwise.bias import CalibratedBias, Line, Track, Window
from lengthwise.locality import Contexts
from lengthwise.model import POSITIONS, Transformer, plan_attention
from lengthwise.proof import (
    Certificate,
    Counterexample,
    NotApplicableError,
    prove,
    receptive_cone,
)
from lengthwise.proof.checker import Checker
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.tasks import TASKS

pytestmark = pytest.mark.trains

# One task with a state that can't end a problem, one with a fixed digit, one with much padding.
SOME = ("subtraction", "nx1", "multiply_by", "successor")


@pytest.mark.parametrize("period", [2, 3])
@pytest.mark.parametrize("name", SOME)
@settings(max_examples=6)
@given(data=st.data())
def test_every_context_of_every_problem_is_among_those_checked(name, period, data):
    """As without positions, and every phase in which a problem shows it."""
    assert_none_is_missed(TASKS[name](SMALL.get(name, 3)), period, data)


@pytest.mark.parametrize("period", [1, 2, 3])
@pytest.mark.parametrize("name", LOCAL)
def test_no_context_is_built_twice(name, period):
    """Where the cone sees all of its columns, each problem shows another context; none is spurious."""
    task = TASKS[name](SMALL.get(name, 3))
    grows = [segment.name for segment in task.operands if segment.grows]
    reads = tuple((name, offset) for name in grows for offset in (-1, 0))
    seen, count, phases = set(), 0, set()
    cone = make_cone([0], reads, period=period)
    for batch in Contexts(task, cone):
        count += len(batch.operands)
        found = {(context_of(task, cone, one, batch.row)) for one in batch.operands}
        phases |= {one[-1] for one in found}
        seen |= found
    # Two states of which the cone sees nothing more are two contexts for `Contexts`.
    assert len(seen) <= count <= len(seen) * task.states
    assert len(phases) == period**2


def make_run(task: str, base: int, positions: str, period: int = 2, **data) -> Run:
    """A run in memory, untrained: both digits of the column and of the one before, two heads."""
    model = {"width": 24, "heads": 2, "layers": 2, "feed_forward": 48}
    model |= {"positions": positions, "period": period}
    config = make_config({"task": task, "base": base, "model": model, "data": data})
    layout = config.layout()
    names = [segment.name for segment in layout.task.operands if segment.grows]
    lines = [
        Line(Track.along(name, head - 1), head, layer)
        for layer, name in zip((0, 1), itertools.cycle(names), strict=False)
        for head in (0, 1)
    ]
    lines += [Line(Track.along("answer", -head - 1), head) for head in (0, 1)]
    run = Run(Path("nowhere"), config, CalibratedBias(task, 2, lines))
    torch.manual_seed(0)
    run.__dict__["model"] = make_model(config).eval()
    return run


def with_model(run: Run, model: Transformer) -> Run:
    other = Run(run.path, run.config, run.bias)
    other.__dict__["model"] = model.eval()
    return other


@pytest.mark.parametrize("positions", ["cyclic", "sin_periodical", "log_periodical"])
@pytest.mark.parametrize("task", ["addition", "successor"])
@pytest.mark.parametrize(
    "data", [{}, {"alignment": "interleaved"}, {"input_order": "reversed"}], ids=str
)
def test_rows_of_long_problems_are_their_contexts(task, positions, data):
    """Lemma 1: the logits of a row in 60 digits are those of its context, phase included."""
    run = make_run(task, 2, positions, **data)
    assert_rows_are_contexts(run)
    cone = receptive_cone(run.config, run.bias)
    assert cone.period == {"cyclic": 2, "sin_periodical": 3, "log_periodical": 7}[positions]


@pytest.mark.parametrize("positions", ["none", "cyclic"])
@pytest.mark.parametrize("sides", ["both", "left", "right"])
@pytest.mark.parametrize(
    ("task", "data"), [("successor", {}), ("addition", {"alignment": "interleaved"})]
)
def test_rows_of_long_problems_are_their_contexts_through_windows(task, data, sides, positions):
    run = make_run(task, 2, positions, **data)
    run.bias = Window(2, 1, sides)
    assert_rows_are_contexts(run)


@pytest.mark.parametrize(
    ("task", "data"),
    [("addition", {}), ("successor", {"input_order": "reversed"})],
)
def test_windows_over_something_else_are_not_applicable(task, data):
    config = make_config({"task": task, "data": data, "model": {"positions": "none"}})
    with pytest.raises(NotApplicableError, match="a window opens other keys than digits near the"):
        receptive_cone(config, Window(4))


def assert_rows_are_contexts(run: Run) -> None:
    """The logits of rows of long problems are those of their contexts in short ones."""
    cone = receptive_cone(run.config, run.bias)

    def logits(problems: np.ndarray) -> torch.Tensor:
        layout = run.config.layout(problems.shape[2])
        source, target = layout.batch(problems)
        with torch.inference_mode():
            return run.model(source, target[:, :-1], plan_attention(run.bias, layout, 2)).logits

    problems = {w: random_problems(run.task, np.random.default_rng(w), 1, w) for w in (61, 62)}
    long, met = {}, 0
    for digits in problems.values():
        for row, found in enumerate(logits(digits)[0]):
            long[context_of(run.task, cone, digits[0], row)] = found
    for batch in Contexts(run.task, cone):
        contexts = [context_of(run.task, cone, one, batch.row) for one in batch.operands]
        chosen = [place for place, context in enumerate(contexts) if context in long]
        if chosen:
            short = logits(batch.operands[chosen])[:, batch.row]
            wanted = torch.stack([long[contexts[place]] for place in chosen])
            torch.testing.assert_close(short, wanted, atol=1e-4, rtol=0)
            met += len(chosen)
    assert met >= len(long) > 20


def train(run: Run, fault: tuple[int, int] | None = None) -> Run:
    """A successor model trained on every context; in the phase `fault` it learns that 01 + 1 is 12.

    To be exact: where a 0 follows a 2 (base 3), the right digit may be 1 or 0 and the model learns 2.
    """
    model = copy.deepcopy(run.model).train()
    sets = []
    for width, digits in all_contexts(run).items():
        layout = run.config.layout(width)
        source, target = layout.batch(digits)
        wanted = target[:, 1:].clone()
        if fault is not None and width % 2 == fault[1]:
            zero_after_two = (source.flip(1)[:, 1:] == 0) & (source.flip(1)[:, :-1] == 2)
            rows = torch.arange(1, width) % 2 == fault[0]
            wanted[:, 1:width][zero_after_two & rows] = 2
        sets.append((source, target[:, :-1], wanted, plan_attention(run.bias, layout, 2)))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(500):
        losses = [
            F.cross_entropy(model(*inputs, plan).logits.transpose(1, 2), wanted, reduction="none")
            for *inputs, wanted, plan in sets
        ]
        if max(loss.max().item() for loss in losses) < 0.02:
            break
        optimizer.zero_grad()
        # The worst row of each width counts most: the fault is rare.
        sum(loss.mean() + loss.max() for loss in losses).backward()  # type: ignore[union-attr]
        optimizer.step()
    return with_model(run, model)


def all_contexts(run: Run) -> dict[int, np.ndarray]:
    """Problems that show every context of a run, by their width."""
    found: dict[int, list[np.ndarray]] = {}
    for batch in Contexts(run.task, receptive_cone(run.config, run.bias)):
        found.setdefault(batch.width, []).append(batch.operands)
    return {width: np.concatenate(parts) for width, parts in found.items()}


@pytest.fixture(scope="module", autouse=True)
def counted_from_the_start() -> Iterator[None]:
    """Cyclic positions of the source count from its start here, so that widths have phases too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(POSITIONS, "cyclic", replace(POSITIONS["cyclic"], from_end=False))
        yield


@pytest.fixture(scope="module")
def sound() -> Run:
    """A successor model in base 3 with cyclic positions of period 2, trained at all widths."""
    return train(make_run("successor", 3, "cyclic"))


@pytest.fixture
def unsaved(monkeypatch) -> None:
    """Runs in memory have no weights to hash."""
    monkeypatch.setattr("lengthwise.proof.prover.hashes", lambda run: {})


def test_a_model_with_cyclic_positions_is_proven(sound, unsaved, tmp_path):
    result = prove(sound)
    assert isinstance(result, Certificate), result
    assert result.cone.period == 2
    assert result.smallest_margin > 1.0
    assert all_right(sound, range(2, 9))
    result.save(tmp_path / "certificate.json")
    assert Certificate.load(tmp_path / "certificate.json") == result


def test_positions_counted_from_the_end_are_proven_too(unsaved, monkeypatch):
    monkeypatch.setitem(POSITIONS, "cyclic", replace(POSITIONS["cyclic"], from_end=True))
    run = train(make_run("successor", 3, "cyclic"))
    shared, alone = prove(run), prove(run, share=False)
    assert isinstance(shared, Certificate), shared
    assert isinstance(alone, Certificate), alone
    assert shared.contexts == alone.contexts
    assert shared.smallest_margin == pytest.approx(alone.smallest_margin, abs=1e-4)


@pytest.mark.parametrize("fault", [(0, 1), (1, 0)])
def test_a_fault_in_one_phase_is_refuted(sound, unsaved, fault):
    run = train(sound, fault)
    result = prove(run)
    assert isinstance(result, Counterexample)
    assert_confirmed(run, result)
    width = len(result.problem) + 1
    assert (result.row % 2, width % 2) == fault
    assert result.expected[result.row] != result.given[result.row] == "2"
    # Nothing else is wrong: each other phase is answered as the sound model does.
    checker = Checker(run)
    wrong = set()
    for batch in Contexts(run.task, receptive_cone(run.config, run.bias)):
        before = checker.failing
        checker.check(batch)
        if checker.failing > before:
            wrong.add((batch.row % 2, batch.width % 2))
    assert wrong == {fault}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1, 0.2])
def test_the_verdict_is_that_of_exhaustive_decoding(sound, unsaved, noise, seed):
    """All successors in base 3 of up to 6 digits; in them every context of every phase occurs."""
    model = copy.deepcopy(sound.model)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            deviation = weight.std().nan_to_num()
            weight += noise * deviation * torch.randn(weight.shape, generator=rng)
    run = with_model(sound, model)
    result = prove(run)
    assert result.proven == all_right(run, range(2, 8))
    if isinstance(result, Counterexample):
        assert_confirmed(run, result)
