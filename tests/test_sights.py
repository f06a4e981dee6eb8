"""What a query sees, and two that see the same, against problems written by hand and by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import LOCAL, SMALL, context_of, make_cone
from lengthwise.locality import Contexts, look, look_alikes
from lengthwise.problems.layout import digits_of
from lengthwise.tasks import TASKS


def test_a_sight_written_by_hand():
    task = TASKS["addition"]()
    operands = digits_of(task, ["95", "17"], 3)[0]
    cone = make_cone([-1, 0], [("a", 0), ("b", -1), ("a", 1)])
    seen = look(task, cone, operands, 1)
    assert seen.seen == "a[c] = 9, a[c+1] = 0, answer[c-2] = ^, answer[c-1] = 2, b[c-1] = 7"
    assert str(seen) == f"{seen.seen}: it must write 1"
    assert (seen.problem, seen.column) == ("95+17", 1)
    end = look(task, cone, operands, 3)
    assert end.writes == "$"
    assert dict(end.tokens) == {
        "a[c]": "",
        "a[c+1]": "",
        "answer[c-2]": "1",
        "answer[c-1]": "1",
        "b[c-1]": "0",
    }
    assert "a[c] = nothing" in end.seen
    assert look(task, cone, operands, 0).seen.endswith(
        "answer[c-2] = nothing, answer[c-1] = ^, b[c-1] = nothing"
    )


@pytest.mark.parametrize("name", LOCAL)
@settings(max_examples=20)
@given(data=st.data())
def test_look_alikes_are_there_exactly_where_lines_do_not_suffice(name, data):
    task = TASKS[name](SMALL.get(name, 3))
    grows = [segment.name for segment in task.operands if segment.grows]
    fixed = [segment.name for segment in task.operands if not segment.grows]
    reads = data.draw(st.sets(st.tuples(st.sampled_from(grows), st.integers(-1, 1)), max_size=4))
    cone = make_cone({0, *data.draw(st.sets(st.integers(-1, 0)))}, reads, fixed)
    found = look_alikes(Contexts(task, cone))
    assert (found is None) == Contexts(task, cone).suffice()
    if found is None:
        return
    first, second = found
    assert first.tokens == second.tokens
    assert first.writes != second.writes
    for one in found:
        # A real problem shows it: decoded by the task itself.
        parts = task.parse(one.problem)
        width = max(map(len, parts)) + task.growth
        operands = digits_of(task, parts, width)[0]
        assert look(task, cone, operands, one.column) == one
        answer = task.answer(operands[None])[0]
        right = "$" if one.column == width else np.base_repr(answer[one.column], 36).lower()
        assert one.writes == right
        assert context_of(task, cone, operands, one.column)
