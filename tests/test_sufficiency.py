"""Whether a cone tells every symbol: known cases, and all short problems."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import LOCAL, make_cone
from lengthwise.locality import Contexts
from lengthwise.proof import Cone
from lengthwise.tasks import TASKS, Transducer

A0, A1, B0, B1 = ("a", 0), ("a", -1), ("b", 0), ("b", -1)


@pytest.mark.parametrize(
    ("task", "rows", "reads", "constants", "enough"),
    [
        ("addition", [0], [A0, A1, B0, B1], [], True),
        ("addition", [0], [A0, B0, B1], [], False),
        ("addition", [0], [A0, A1, B0], [], False),
        ("addition", [0], [A1, B0, B1], [], False),
        # The carry is known from the row before; not without its digits.
        ("addition", [-1, 0], [A0, A1, B0, B1], [], True),
        ("addition", [-1, 0], [A0, B0], [], False),
        ("subtraction", [0], [A0, A1, B0, B1], [], True),
        # 0 - 0 and 10 - 10 write the same, with another borrow.
        ("subtraction", [0], [A0, A1, B0], [], False),
        ("successor", [0], [A0, A1], [], True),
        ("successor", [0], [A0], [], False),
        ("decrement", [0], [A0, A1], [], True),
        ("nx1", [0], [A0, A1], ["d"], True),
        ("nx1", [0], [A0, A1], [], False),
        ("nx1", [0], [A0], ["d"], False),
        # The sum so far is the token; the digit is closed in the row of the end token.
        ("modular_sum", [0], [A0], [], True),
        ("parity", [0], [A0], [], True),
        ("copy", [0], [A0], [], True),
        # The digit before is no sign that the operand has ended.
        ("copy", [0], [A1], [], False),
        ("parity", [0], [], [], False),
    ],
)
def test_known_cones(task, rows, reads, constants, enough):
    cone = make_cone(rows, reads, constants)
    assert Contexts(TASKS[task](), cone).suffice() == enough


def all_problems(task: Transducer, width: int) -> np.ndarray:
    """Every problem of one width: digits `[problem, operand, column]`."""
    grows = [i for i, s in enumerate(task.operands) if s.grows]
    fixed = [i for i, s in enumerate(task.operands) if not s.grows]
    room = width - task.growth
    found = []
    for values in product(range(task.base), repeat=len(grows) * room + len(fixed)):
        digits = np.zeros((len(task.operands), width), np.uint8)
        digits[grows, :room] = np.reshape(values[: len(grows) * room], (len(grows), room))
        for index, value in zip(fixed, values[len(grows) * room :], strict=True):
            digits[index] = value
        found.append(digits)
    operands = np.array(found)
    if task.final_states is None:
        return operands
    state = np.full(len(operands), task.start_state)
    for column in range(width):
        state = task.tables[0][(state, *operands[:, :, column].T)]
    return operands[np.isin(state, list(task.final_states))]


def tells_all_short(task: Transducer, cone: Cone, widths: range) -> bool:
    """By brute force: no two rows of short problems look alike and write different symbols."""
    names = [segment.name for segment in task.operands]
    written = defaultdict(set)
    for width in widths:
        operands = all_problems(task, width)
        answers = task.answer(operands).astype(int)
        for row in range(width + 1):
            end = np.full(len(operands), -1)
            columns = [operands[:, names.index(name), 0] for name in cone.constants]
            for track in cone.reads:
                if not track.place:
                    continue
                place = row + track.offset
                if track.segment == "answer":
                    start = end - 1 if place == -1 else end
                    columns.append(answers[:, place] if place >= 0 else start)
                else:
                    digits = operands[:, names.index(track.segment)]
                    columns.append(digits[:, place] if 0 <= place < width else end)
            columns.append(answers[:, row] if row < width else end)
            for *sight, symbol in np.unique(np.stack(columns, axis=1), axis=0).tolist():
                written[tuple(sight)].add(symbol)
    return all(len(symbols) == 1 for symbols in written.values())


# Bases so small that all problems can be listed.
BASES = {"nx1": 3, "modular_sum": 3, "successor": 3}


@pytest.mark.trains
@pytest.mark.parametrize("name", LOCAL)
@settings(max_examples=30)
@given(data=st.data())
def test_the_verdict_is_that_of_all_short_problems(name, data):
    task = TASKS[name](BASES.get(name, 2))
    grows = [segment.name for segment in task.operands if segment.grows]
    fixed = [segment.name for segment in task.operands if not segment.grows]
    rows = {0, *data.draw(st.sets(st.integers(-1, 0)))}
    places = st.tuples(st.sampled_from(grows), st.integers(-1, 1))
    reads = data.draw(st.sets(places, min_size=1, max_size=4))
    constants = data.draw(st.sets(st.sampled_from(fixed))) if fixed else ()
    cone = make_cone(rows, reads, constants)
    widths = range(1 + task.growth, 3 + task.growth - min(cone.columns))
    assert Contexts(task, cone).suffice() == tells_all_short(task, cone, widths)
