"""Random problems: splits that never meet, distributions as documented, draws that repeat."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Multiple
from lengthwise.errors import NoProblemsError
from lengthwise.problems.sampling import (
    add_chains,
    generator,
    split_of,
    suite_problems,
    training_problems,
)
from lengthwise.tasks import TASKS, Transducer
from lengthwise.tasks.addition import Addition
from lengthwise.tasks.successor import Successor

# Tasks of base 10 whose operands all grow.
TASK_NAMES = [
    *("addition", "copy", "decrement", "modular_sum", "multi_addition", "multiply_by"),
    *("subtraction", "successor"),
]


def draw_training(task, *, seed=0, step=0, count=512, length=6, stream="train", **changes):
    settings = {"width": length + 1, "carry_fraction": 0.3, "split": "train", **changes}
    return training_problems(task, generator(seed, stream, step), count, length=length, **settings)


def draw_suite(task, *, seed=0, step=0, count=512, length=6, suite="uniform", **changes):
    settings = {"width": length + 1, "split": "test", **changes}
    rng = generator(seed, "test", step)
    return suite_problems(task, rng, count, suite=suite, length=length, **settings)


def lengths_of(digits: np.ndarray) -> np.ndarray:
    """Digits of each number: columns up to the last non-zero one, at least 1."""
    return np.maximum(1, ((digits > 0) * np.arange(1, digits.shape[-1] + 1)).max(axis=-1))


def keys(operands: np.ndarray) -> set[tuple[int, ...]]:
    """The values of each problem's operands."""
    values = operands.astype(np.int64) @ 10 ** np.arange(operands.shape[-1], dtype=np.int64)
    return set(map(tuple, values.tolist()))


def all_pairs(highest: int, width: int) -> np.ndarray:
    """Every pair of numbers below `highest`, as digits."""
    pairs = np.array(list(itertools.product(range(highest), repeat=2)))
    return (pairs[:, :, None] // 10 ** np.arange(width) % 10).astype(np.uint8)


def runs(inside: np.ndarray) -> np.ndarray:
    """The longest run of True in each row, by a slow loop."""
    longest = []
    for row in inside.tolist():
        best = now = 0
        for flag in row:
            now = now + 1 if flag else 0
            best = max(best, now)
        longest.append(best)
    return np.array(longest)


# --- splits ---


@pytest.mark.trains
def test_every_small_addition_is_in_exactly_one_split():
    # All 10,000 problems of one and two digits. What is drawn from a split is what the hash puts
    # there; with this many draws, all of it.
    problems = all_pairs(100, 3)
    bucket = split_of(problems)
    names = np.array(["validation", "test"] + ["train"] * 14)[bucket]
    counts = {"train": 100_000, "validation": 7_000, "test": 7_000}
    for split in counts:
        wanted = keys(problems[names == split])
        drawn = set()
        for step in range(3):
            drawn |= keys(
                draw_training(Addition(), length=2, step=step, count=counts[split], split=split)
            )
        assert drawn == wanted
    assert len(keys(problems)) == 10_000


@pytest.mark.trains
@pytest.mark.parametrize("name", TASK_NAMES)
def test_trained_problems_are_never_validated_or_tested_on(name):
    task = TASKS[name]()
    trained, held = set(), {"validation": set(), "test": set()}
    for seed in range(3):
        for step in range(15):
            problems = draw_training(task, seed=seed, step=step, length=3, carry_fraction=0.5)
            assert (split_of(problems) > 1).all()
            trained |= keys(problems)
        # Streams with the same seeds, and widths of their own.
        for bucket, split in enumerate(held):
            for suite in ("uniform", "carry"):
                problems = draw_suite(
                    task, seed=seed, length=3, suite=suite, split=split, width=9, count=2000
                )
                assert (split_of(problems) == bucket).all()
                held[split] |= keys(problems)
            problems = draw_training(task, seed=seed, length=3, split=split, width=5)
            assert (split_of(problems) == bucket).all()
            held[split] |= keys(problems)
    assert len(trained) > 300
    assert min(map(len, held.values())) > 30
    assert trained.isdisjoint(held["test"])
    assert trained.isdisjoint(held["validation"])
    assert held["test"].isdisjoint(held["validation"])


@given(st.integers(1, 3), st.integers(1, 8), st.integers(0, 8), st.integers(0, 10**6))
def test_the_split_does_not_depend_on_padding(operands, width, extra, seed):
    digits = np.random.default_rng(seed).integers(0, 10, (50, operands, width), np.uint8)
    wider = np.pad(digits, ((0, 0), (0, 0), (0, extra)))
    np.testing.assert_array_equal(split_of(wider), split_of(digits))


def test_the_split_of_a_task_with_a_fixed_digit_does_not_depend_on_padding():
    # Its digit is repeated in every column, so a wider problem holds more of it.
    trained, tested = set(), set()
    for step in range(10):
        for problems, seen in (
            (draw_training(Multiple(), step=step, length=2, width=3), trained),
            (draw_suite(Multiple(), step=step, length=2, width=3 + step), tested),
        ):
            problems[:, 1, 1:] = 0
            seen |= keys(problems)
    assert min(len(trained), len(tested)) > 30
    assert trained.isdisjoint(tested)


def test_the_split_does_not_depend_on_the_other_problems():
    digits = np.random.default_rng(0).integers(0, 10, (50, 2, 6), np.uint8)
    np.testing.assert_array_equal(split_of(digits)[7:8], split_of(digits[7:8]))


def test_the_split_depends_on_every_digit_and_on_the_order_of_operands():
    digits = np.random.default_rng(0).integers(1, 10, (4000, 2, 5), np.uint8)
    before = split_of(digits)
    for operand, column in itertools.product(range(2), range(5)):
        changed = digits.copy()
        changed[:, operand, column] -= 1
        # Independent buckets agree in one case of 16.
        assert 0.9 < (split_of(changed) != before).mean() < 0.97
    assert 0.9 < (split_of(digits[:, ::-1]) != before).mean() < 0.97


@pytest.mark.parametrize(("operands", "width"), [(1, 6), (2, 6), (2, 40)])
def test_shares_of_the_splits(operands, width):
    digits = np.random.default_rng(1).integers(0, 10, (160_000, operands, width), np.uint8)
    counts = np.bincount(split_of(digits), minlength=16)
    assert len(counts) == 16
    # 10,000 a bucket; six standard deviations.
    assert abs(counts - 10_000).max() < 6 * np.sqrt(160_000 / 16 * 15 / 16)


def test_any_is_every_split():
    buckets = split_of(draw_suite(Addition(), count=2000, split="any"))
    assert set(buckets.tolist()) == set(range(16))


# --- determinism ---


def test_equal_arguments_give_equal_draws():
    for draw in (draw_training, draw_suite):
        first, second = (draw(Addition(), seed=5, step=9) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.dtype == np.uint8


@pytest.mark.parametrize("name", [*TASK_NAMES, "nx1", "parity"])
def test_problems_do_not_depend_on_how_many_are_worked_on_at_once(name, monkeypatch):
    task = TASKS[name]()
    draws = []
    for at_once in (1, 500, 10**9):
        monkeypatch.setattr("lengthwise.problems.sampling._AT_ONCE", at_once)
        rng = generator(0, "test")
        draws.append(suite_problems(task, rng, 40, suite="carry", length=9, width=12))
    np.testing.assert_array_equal(draws[0], draws[2])
    np.testing.assert_array_equal(draws[1], draws[2])


def test_seed_stream_and_step_all_matter():
    draws = {}
    for seed, stream, step in itertools.product(
        (0, 1, 2), ("train", "validation", "test", "any", "capture"), (0, 1, 2)
    ):
        draws[seed, stream, step] = generator(seed, stream, step).integers(0, 2**62)
    assert len(set(draws.values())) == len(draws) == 45


def test_an_unknown_stream_is_refused():
    with pytest.raises(KeyError, match="'tset'"):
        generator(0, "tset")


# --- the training distribution ---


@pytest.mark.parametrize("carry_fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("base", [2, 10, 36])
@pytest.mark.parametrize("name", TASK_NAMES)
def test_training_problems_fit(name, base, carry_fraction):
    task = TASKS[name](base)
    problems = draw_training(task, carry_fraction=carry_fraction, length=5, width=9)
    assert problems.shape == (512, len(task.operands), 9)
    assert problems.dtype == np.uint8
    assert problems.max() == base - 1
    assert set(lengths_of(problems).max(axis=1).tolist()) == {1, 2, 3, 4, 5}


def test_lengths_are_the_larger_of_two_uniform_draws():
    # The longest operand has length k with probability (2k - 1) / 36.
    n = 60_000
    problems = draw_training(Successor(), count=n, length=6, carry_fraction=0.0, split="any")
    counts = np.bincount(lengths_of(problems[:, 0]), minlength=7)[1:]
    share = (2 * np.arange(1, 7) - 1) / 36
    assert (abs(counts - n * share) < 6 * np.sqrt(n * share * (1 - share))).all()


def test_half_of_the_operands_have_the_same_length():
    # Equal when not drawn apart (1/2), or apart and equal by chance: 1/2 sum_k (2k-1)/36 / k.
    n = 60_000
    problems = draw_training(Addition(), count=n, length=6, carry_fraction=0.0, split="any")
    lengths = lengths_of(problems)
    k = np.arange(1, 7)
    share = 0.5 + 0.5 * ((2 * k - 1) / 36 / k).sum()
    equal = (lengths[:, 0] == lengths[:, 1]).sum()
    assert abs(equal - n * share) < 6 * np.sqrt(n * share * (1 - share))
    # Neither operand is favoured.
    longer, shorter = ((sign * (lengths[:, 0] - lengths[:, 1]) > 0).sum() for sign in (1, -1))
    assert abs(longer - shorter) < 6 * np.sqrt(longer + shorter)


def test_digits_are_uniform_and_the_first_is_not_zero():
    n = 40_000
    problems = draw_suite(Successor(), count=n, length=3, split="any")[:, 0]
    for column, lowest in ((0, 0), (1, 0), (2, 1)):
        counts = np.bincount(problems[:, column], minlength=10)
        assert counts[:lowest].sum() == 0
        share = 1 / (10 - lowest)
        spread = np.sqrt(n * share * (1 - share))
        assert (abs(counts[lowest:] - n * share) < 6 * spread).all()
    # A single digit may be zero.
    single = draw_suite(Successor(), count=n, length=1, split="any")[:, 0, 0]
    counts = np.bincount(single, minlength=10)
    assert (abs(counts - n / 10) < 6 * np.sqrt(n * 0.09)).all()


@pytest.mark.parametrize("base", [2, 10, 36])
@pytest.mark.parametrize("name", [*TASK_NAMES, "nx1"])
def test_the_papers_numbers_are_uniform_below_two_to_the_twenty(name, base):
    n, task = 20_000, TASKS[name](base)
    grows = [index for index, segment in enumerate(task.operands) if segment.grows]
    problems = draw_training(task, count=n, width=21, distribution="paper", split="any")
    values = problems.astype(np.int64) @ base ** np.arange(21, dtype=np.int64) * (base < 36)
    if base == 36:  # 36^21 does not fit; the numbers have four digits
        assert not problems[:, grows, 4:].any()
        values = problems[..., :4].astype(np.int64) @ 36 ** np.arange(4)
    values = values[:, grows]
    assert values.max() < 2**20
    if name != "subtraction":  # its operands are sorted
        # Eighths of the range, each of n / 8; six standard deviations.
        for column in values.T:
            counts = np.bincount(column >> 17, minlength=8)
            assert (abs(counts - n / 8) < 6 * np.sqrt(n * 7 / 64)).all()
    if name == "nx1":
        digit = problems[:, 1]
        assert (digit == digit[:, :1]).all()
        assert set(digit[:, 0].tolist()) == set(range(base))


def test_seven_in_eight_of_the_papers_problems_are_trained_on():
    n = 40_000
    problems = draw_training(Addition(), count=n, width=8, distribution="paper", split="any")
    trained = (split_of(problems) > 1).sum()
    assert abs(trained - n * 7 / 8) < 6 * np.sqrt(n * 7 / 64)
    drawn = draw_training(Addition(), count=n, width=8, distribution="paper")
    assert (split_of(drawn) > 1).all()


def test_sums_of_many_operands_occur_from_the_least_to_the_largest():
    task, n = TASKS["multi_addition"](), 40_000
    problems = draw_training(task, count=n, length=1, carry_fraction=0.0, split="any")
    share = np.bincount(problems[:, :, 0].sum(axis=1, dtype=int), minlength=28) / n
    # A quarter has a uniform sum; the rest is random digits, of which one in 1000 are three nines.
    expected = 0.25 / 28 + 0.75 / 1000
    assert abs(share[27] - expected) < 6 * np.sqrt(expected / n)
    # The quarter does not make problems longer.
    problems = draw_training(task, count=n, length=4, width=9)
    assert not problems[:, :, 4:].any()


# --- suites ---


@pytest.mark.parametrize("length", [1, 2, 7, 60])
@pytest.mark.parametrize("name", TASK_NAMES)
def test_suites_have_the_exact_length(name, length):
    task = TASKS[name]()
    uniform = draw_suite(task, length=length, split="any", width=length + 3)
    assert (lengths_of(uniform) == length).all()
    chained = draw_suite(task, length=length, split="any", width=length + 3, suite="carry")
    assert (lengths_of(chained).max(axis=1) == length).all()
    assert uniform.shape == chained.shape == (512, len(task.operands), length + 3)


@pytest.mark.parametrize("count", [0, 1, 3, 257])
def test_the_count_is_exact(count):
    assert len(draw_training(Addition(), count=count)) == count
    assert len(draw_suite(Addition(), count=count)) == count


@pytest.mark.trains
def test_a_split_without_problems_says_so():
    # The hash tells which split holds the only two problems, 0 and 1 in base 2.
    bucket = split_of(np.array([[[0, 0]], [[1, 0]]], np.uint8))
    held = {"validation": (bucket == 0).any(), "test": (bucket == 1).any()}
    assert not all(held.values())
    for split, holds in held.items():
        if holds:
            drawn = draw_suite(Successor(2), length=1, split=split)
            assert (split_of(drawn) == ("validation", "test").index(split)).all()
        else:
            text = f"^the {split} split holds no problem of successor of length 1$"
            with pytest.raises(NoProblemsError, match=text):
                draw_suite(Successor(2), length=1, split=split)
    assert issubclass(NoProblemsError, ValueError)


# --- carry chains ---


def carried(task: Transducer, operands: np.ndarray) -> np.ndarray:
    """The longest run of columns that pass a carry of 1 on, by running the states."""
    longest = []
    for problem in operands.tolist():
        state, best, now = task.start_state, 0, 0
        for column in zip(*problem, strict=True):
            passes = state == 1 and bool(task.propagating[column])
            now = now + 1 if passes else 0
            best = max(best, now)
            state, _ = task.step(state, *column)
        longest.append(best)
    return np.array(longest)


@pytest.mark.parametrize("base", [2, 10])
@pytest.mark.parametrize("name", ["addition", "successor"])
def test_chains_propagate_where_they_are_laid(name, base):
    task, rng = TASKS[name](base), np.random.default_rng(3)
    # A digit array that propagates nowhere, so that every change is the chain's.
    digits = np.full((3000, len(task.operands), 12), 0, np.uint8)
    lengths = rng.integers(1, 11, 3000)
    chained = add_chains(task, rng, digits.copy(), lengths)
    passing = task.propagating[tuple(np.moveaxis(chained, 1, 0))]
    changed = (chained != digits).any(axis=1)
    np.testing.assert_array_equal(passing, changed)
    assert (changed.sum(axis=1) >= 1).all()
    # One run each, inside the problem.
    np.testing.assert_array_equal(runs(changed), changed.sum(axis=1))
    assert (changed.argmax(axis=1) + changed.sum(axis=1) <= lengths).all()
    # Half begin at column 0, and one in `length` of the others does: on average about 0.65.
    assert 0.6 < changed[:, 0].mean() < 0.72
    # Some reach over the whole problem, some are short.
    assert (changed.sum(axis=1) == lengths)[lengths == 10].mean() > 0.03
    assert (changed.sum(axis=1) == 1)[lengths == 10].mean() > 0.05


def test_chain_columns_are_spread_over_all_that_propagate():
    rng = np.random.default_rng(0)
    digits = np.zeros((20_000, 2, 1), np.uint8)
    chained = add_chains(Addition(), rng, digits, np.ones(20_000, np.int64))
    counts = np.bincount(chained[:, 0, 0], minlength=10)
    assert (chained[:, 0] + chained[:, 1] == 9).all()
    assert (abs(counts - 2000) < 6 * np.sqrt(20_000 * 0.09)).all()


def test_the_carry_suite_is_hard():
    uniform = {
        name: draw_suite(TASKS[name](), count=2000, length=20) for name in ("addition", "successor")
    }
    carry = {
        name: draw_suite(TASKS[name](), count=2000, length=20, suite="carry")
        for name in ("addition", "successor")
    }
    for name, task in ((name, TASKS[name]) for name in ("addition", "successor")):
        # Uniform problems hardly carry; every length of a carried run occurs in the carry suite.
        plain, chains = carried(task(), uniform[name]), carried(task(), carry[name])
        assert plain.max() < 10 < chains.max()
        assert chains.mean() > 2.5 * plain.mean()
        assert (chains >= 15).mean() > 0.01
    # Successor: nines at the end, up to all of them (that one problem is in one split only).
    nines = (carry["successor"][:, 0] == 9).cumprod(axis=1).sum(axis=1)
    assert set(nines.tolist()) >= set(range(1, 20))
    every = draw_suite(Successor(), count=2000, length=20, suite="carry", split="any")
    assert (every[:, 0, :20] == 9).all(axis=1).any()
    # Addition: columns that sum to nine from the first to the last.
    sums = carry["addition"].sum(axis=1, dtype=np.int64)
    assert ((sums == 9).sum(axis=1) == 20).any()
    # And carries that start in column 0 and run to the end.
    assert carried(Addition(), carry["addition"]).max() >= 18


def test_the_share_of_chains_in_training():
    # A chain over a single digit is visible in every problem of one digit.
    n = 30_000
    for fraction in (0.0, 0.3, 1.0):
        problems = draw_training(
            Addition(), count=n, length=1, carry_fraction=fraction, split="any"
        )
        share = fraction + (1 - fraction) * 0.1  # 10 of 100 pairs sum to nine
        nines = (problems[:, :, 0].sum(axis=1) == 9).sum()
        assert abs(nines - n * share) <= 6 * np.sqrt(n * share * (1 - share))


def test_chains_of_a_task_with_a_fixed_digit():
    # 9999 * 3 carries, and so on: which columns propagate depends on the digit d. The chain never
    # changes d, and skips problems whose d lets nothing through.
    task, rng = Multiple(), np.random.default_rng(0)
    digits = np.zeros((3000, 2, 8), np.uint8)
    digits[:, 1] = rng.integers(0, 10, 3000)[:, None]
    chained = add_chains(task, rng, digits.copy(), np.full(3000, 8))
    np.testing.assert_array_equal(chained[:, 1], digits[:, 1])
    for a, d in zip(chained[:, 0].tolist(), digits[:, 1, 0].tolist(), strict=True):
        possible = task.propagating[:, d]
        if not possible.any():
            assert not any(a)
        else:
            assert possible[a].any()
            assert all(possible[digit] for digit in a if digit)


def test_problems_with_a_fixed_digit_repeat_it_in_every_column():
    problems = draw_training(Multiple(), length=4)
    assert (problems[:, 1] == problems[:, 1, :1]).all()
    assert len(set(problems[:, 1, 0].tolist())) == 10
