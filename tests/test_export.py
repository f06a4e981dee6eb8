"""Problems in the forms of others: rows of JSON, CLRS-Text, data sets."""

import json
import re
import sys

import pytest

import lengthwise as lw
from lengthwise.interop.records import rows, to_dataset
from lengthwise.problems.worked import worked
from lengthwise.tasks import ALL_TASKS, WORKSHEETS


def small(task, **named):
    sheet = ["7x24"] if task == "turing_machine" else ["7x4"]
    return lw.problems(task, sheet if task in WORKSHEETS else [8], count=2, **named)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_a_row_draws_its_problem_again(task):
    problems = small(task, split="test", seed=5)
    for row in map(json.loads, map(json.dumps, rows(problems))):
        given = {"base": row["base"], **row.get("parameters", {})}
        size = problems.sizes[0]
        again = lw.problems(
            row["task"], [size], row["split"], row["seed"], suite=row["suite"], set=given
        )[row["index"]]
        assert (again.expression, again.answer) == (row["expression"], row["answer"])
        assert [*again.rows] == row["work"]


@pytest.mark.parametrize("work", [True, False])
@pytest.mark.parametrize("task", ALL_TASKS)
def test_clrs_text_can_be_read_back(task, work):
    """By the grammar of their format: `name:\\ninputs\\noutputs:\\n`, then `trace | output\\n\\n`."""
    problems = small(task)
    for problem, row in zip(problems, rows(problems, "clrs-text", work), strict=True):
        assert list(row) == ["text", "question", "answer", "algo_name", "length", "use_hints"]
        assert row["text"] == row["question"] + row["answer"]
        assert (row["algo_name"], row["use_hints"]) == (task, work)
        name, inputs, asked = re.fullmatch(r"(\w+):\n(.+)\n(.+):\n", row["question"]).groups()
        assert name == task
        assert asked == ("trace | answer" if work else "answer")
        values = dict(one.split(": ") for one in inputs.split(", "))
        assert (values.pop("initial_trace", None) is not None) == work
        own = problems.format.task
        operands = [values[s.name].strip("[]").split(" ") for s in own.operands]
        if task in WORKSHEETS:
            again = own.expression(operands)
        else:
            texts = iter("".join(part) for part in operands)
            again = "".join(s.text if s.kind == "symbol" else next(texts) for s in own.segments)
        assert worked(problems.format, again).answer == problem.answer
        answer = row["answer"].removesuffix("\n\n")
        if work:
            trace, _, answer = answer.rpartition(" | ")
            states = [state.strip("[]") for state in trace.split("], [")]
            written = " ".join(states)
            assert written.replace(" ", "") == problem.work.replace(" ", "")
        assert answer == problem.answer


def test_the_example_of_clrs_text():
    (row,) = rows(lw.problems("addition", 3, "train", 1, count=1), "clrs-text")
    a, b = re.search(r"a: \[(.*)\], b: \[(.*)\], initial", row["question"]).groups()
    a, b = (int(text.replace(" ", "")) for text in (a, b))
    assert row["question"].startswith("addition:\nbase: 10, a: [")
    assert row["answer"] == f"[{' '.join(f'{a + b:04}'[::-1])}] | {a + b}\n\n"


def test_export_writes_what_python_gives(call, tmp_path):
    file = tmp_path / "test.jsonl"
    options = ["--sizes", "3x2,2x3", "--count", 5, "--split", "test", "--seed", 3]
    code, out, err = call("export", "multiplication", *options, "--out", file)
    assert (code, out, err) == (0, f"5 problems: {file}\n", "")
    wanted = [*rows(lw.problems("multiplication", ["3x2", "2x3"], "test", 3, count=5))]
    assert [json.loads(line) for line in file.read_text().splitlines()] == wanted
    code, out, _ = call("export", "multiplication", *options)
    assert [json.loads(line) for line in out.splitlines()] == wanted
    assert json.loads(call("export", "multiplication", *options, "--json")[1]) == wanted
    code, out, _ = call("export", "addition", "--lengths", "2-4", "--count", 6, "--no-work")
    assert [json.loads(line)["size"] for line in out.splitlines()] == [*"234234"]
    assert "work" not in out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["adition"], "unknown task 'adition'; did you mean 'addition'?"),
        (["addition", "--format", "clrs"], "unknown format 'clrs'; did you mean 'clrs-text'?"),
        (["addition", "--lengths", "6", "--sizes", "6"], "--lengths and --sizes both say"),
        (["addition", "--sizes", "6x6"], "sizes takes whole numbers from 1 up"),
        (["addition", "--split", "dev"], "unknown split 'dev'"),
        (["addition", "--out", "."], "--out takes a file"),
        (["parity", "--lengths", "1", "--split", "test"], "the test split holds no problem"),
    ],
)
def test_bad_input_is_one_line(call, given, said):
    code, _, err = call("export", *given)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_a_file_appears_whole_or_not_at_all(call, tmp_path):
    """The second of these sizes has no problem in the split."""
    file = tmp_path / "out.jsonl"
    options = ["--lengths", "12,1", "--split", "test", "--out", file]
    assert call("export", "parity", *options)[0] == 2
    assert [*tmp_path.iterdir()] == []


@pytest.mark.trains
def test_rows_make_a_dataset(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    datasets.disable_progress_bars()
    problems = lw.problems("multiplication", "2x2", "test", 3, count=3)
    for form in ("jsonl", "clrs-text"):
        assert [*to_dataset(problems, form)] == [*rows(problems, form)]


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(lw.InputError, match=re.escape("pip install 'lengthwise[datasets]'")):
        to_dataset(lw.problems("addition"))
