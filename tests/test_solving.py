"""`lengthwise solve`: lines of any kind from files and pipes, answered in order; nothing is lost."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from lengthwise.cli import entry
from lengthwise.cli import solving as command
from lengthwise.cli.solving import read_batches
from lengthwise.decoding import greedy as decoding
from lengthwise.runs.run import (
    LONGEST,
    LONGEST_CACHED,
    Run,
)
from lengthwise.settings.config import InputError, make_config
from lengthwise.tasks import TASKS
from lengthwise.training.trainer import train_run


@pytest.fixture
def solve(tiny_abc, tmp_path, capfd):
    """Answer the lines of a file with the calibrated successor model: code, stdout, stderr."""

    def run(content: bytes, *arguments: str, folder=tiny_abc.path) -> tuple[int, str, str]:
        path = tmp_path / "expressions.txt"
        path.write_bytes(content)
        capfd.readouterr()
        code = entry.run(["solve", str(folder), "--file", str(path), *arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def process(tiny_abc):
    """Start `lengthwise solve RUN -` as a process of its own."""

    def start(**pipes) -> subprocess.Popen:
        arguments = [sys.executable, "-m", "lengthwise", "solve", str(tiny_abc.path), "-"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, **pipes)

    return start


@pytest.mark.parametrize("folder", ["calibrated", "vanilla"])
def test_any_lengths_are_answered_in_order(solve, tiny_abc, folder):
    numbers = [9, 99, 0, 12345, 7, 10**30, 99]
    content = "".join(f"{number}\n" for number in numbers).encode()
    code, out, err = solve(content, folder=tiny_abc.path / folder)
    assert out.count("\n") == len(numbers)
    alone = [Run.open(tiny_abc.path / folder).answers([str(n)])[0] for n in numbers]
    assert out.splitlines() == [answer.text if answer.complete else "" for answer in alone]
    if folder == "calibrated":
        assert (code, err) == (0, "")
        assert out == "".join(f"{number + 1}\n" for number in numbers)
    else:
        # A vanilla model of four digits does not end longer answers; it is right at four and fewer.
        complete = [True, True, True, False, True, False, True]
        assert [answer.complete for answer in alone] == complete
        assert out.splitlines()[:3] == ["10", "100", "1"]
        assert code == 1
        assert err.startswith("lengthwise: line 4: no answer: 6 digits and an end ($) were due")


def test_what_is_no_expression_is_reported_with_its_number_and_the_rest_is_answered(solve):
    lines = [b"\xef\xbb\xbf9", b"", b"1+1", b"  99 ", b"\xd9\xa3", b"1\x002", b"\xff9", b"5"]
    code, out, err = solve(b"\r\n".join(lines))
    assert (code, out) == (2, "10\n\n\n100\n\n\n\n6\n")
    told = err.splitlines()
    assert [line.split(":")[1] for line in told] == [f" line {n}" for n in (3, 5, 6, 7)]
    assert "unexpected '+' at position 2 of '1+1'" in told[0]
    assert "unexpected '٣' at position 1" in told[1]
    assert r"unexpected '\x00' at position 2" in told[2]
    assert "byte 1 is not UTF-8" in told[3]


def test_json_is_one_array(solve):
    code, out, _ = solve(b"9\n\nx\n99", "--json")
    first, bad, last = json.loads(out)
    assert code == 2
    assert first == {"line": 1, "expression": "9", "answer": "10"}
    assert (bad["line"], bad["expression"], bad["error"][:14]) == (3, "x", "unexpected 'x'")
    assert last == {"line": 4, "expression": "99", "answer": "100"}


@pytest.fixture(scope="module")
def short_sighted(tmp_path_factory):
    """A run whose learned positions end after 16 tokens."""
    values = {
        "task": "successor",
        "data": {"length": 4},
        "model": {"width": 16, "heads": 2, "layers": 1, "feed_forward": 16, "max_positions": 16},
        "training": {"until": "max_steps", "max_steps": 1, "validation_problems": 8},
    }
    config = make_config(values, ["model.positions=learned", "device=cpu"])
    return train_run(config, tmp_path_factory.mktemp("short") / "run")


@pytest.mark.parametrize(
    ("bad", "message"), [("9x", "unexpected 'x'"), ("9" * 40, "learned positions")]
)
def test_what_can_not_be_asked_takes_no_answer_from_the_others(
    short_sighted, solve, capfd, bad, message
):
    code = entry.run(["solve", str(short_sighted.path), "9", bad, "8", "--json"])
    rows = json.loads(capfd.readouterr().out)
    assert code == 2
    assert [row["expression"] for row in rows] == ["9", bad, "8"]
    assert [set(row) >= {"answer"} for row in rows] == [True, False, True]
    answers = [row["answer"] for row in rows if "answer" in row]
    assert message in rows[1]["error"]
    code, out, err = solve(f"9\n{bad}\n8\n".encode(), "--json", folder=short_sighted.path)
    assert code == 2
    assert [row["answer"] for row in json.loads(out) if "answer" in row] == answers
    assert "line 2: " in err


@pytest.mark.parametrize("bad", ["9x", "9" * 40])
def test_one_that_can_not_be_asked(short_sighted, capfd, bad):
    assert entry.run(["solve", str(short_sighted.path), bad]) == 2
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert entry.run(["solve", str(short_sighted.path), bad, "--json"]) == 2
    assert [set(row) for row in json.loads(capfd.readouterr().out)] == [{"expression", "error"}]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf"])
def test_files_without_expressions(solve, content):
    assert solve(content) == (0, "\n" * content.count(b"\n"), "")
    assert json.loads(solve(content, "--json")[1]) == []


def test_more_lines_than_are_looked_ahead(solve, monkeypatch):
    monkeypatch.setattr(command, "AHEAD_LINES", 7)
    content = "".join(f"{number}\n" for number in range(40))
    assert solve(content.encode())[1] == "".join(f"{number + 1}\n" for number in range(40))


def test_a_million_digits(solve):
    code, out, err = solve(b"3" + b"9" * 1_000_000 + b"\n9\n")
    assert code == 0
    assert out == "4" + "0" * 1_000_000 + "\n10\n"
    assert all("lines answered" in line for line in err.splitlines())


def test_an_operand_that_is_too_long_is_a_bad_line(solve, tiny_abc):
    code, out, err = solve(b"1" * (LONGEST + 1) + b"\n9\n")
    assert (code, out) == (2, "\n10\n")
    assert err == (
        f"lengthwise: line 1: an operand has {LONGEST + 1} digits; the limit is {LONGEST}\n"
    )
    _, _, err = solve(b"1" * (LONGEST_CACHED + 1), folder=tiny_abc.path / "vanilla")
    assert f"the limit is {LONGEST_CACHED}" in err


def test_a_line_without_end_is_not_kept(monkeypatch):
    monkeypatch.setattr(command, "LONGEST_LINE", 100_000)
    source = io.BytesIO(b"1\n" + b"7" * 300_000 + b"\n2\n" + b"8" * 100_001)
    lines = [line for batch in read_batches(source) for line in batch]
    assert lines == [(1, b"1"), (2, None), (3, b"2"), (4, None)]


@pytest.mark.parametrize("size", [1, 2, 3, 1 << 16])
def test_lines_are_whole_however_they_arrive(size):
    content = b"12\r\n\n345\r\n6"

    class Slow(io.BytesIO):
        def read1(self, count=-1):
            return super().read1(size)

    lines = [line for batch in read_batches(Slow(content)) for line in batch]
    assert lines == [(1, b"12"), (2, b""), (3, b"345"), (4, b"6")]


def test_a_pipe_is_answered_while_it_is_open(process):
    """A program may ask, wait for the answer, and ask again."""
    with process(stdout=subprocess.PIPE) as solver:
        for number in (9, 41, 999):
            solver.stdin.write(f"{number}\n".encode())
            solver.stdin.flush()
            assert solver.stdout.readline() == f"{number + 1}\n".encode()
        solver.stdin.close()
        assert solver.wait() == 0


def test_a_reader_that_leaves_early_ends_it_quietly(process):
    solver = process(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    solver.stdin.write(b"9\n")
    solver.stdin.flush()
    assert solver.stdout.readline() == b"10\n"
    solver.stdout.close()
    # It goes on until it writes what nobody reads; then writing to it fails.
    with pytest.raises(BrokenPipeError), solver.stdin:  # noqa: PT012  # whichever write is the first
        for _ in range(10_000):
            solver.stdin.write(b"9\n" * 1000)
            solver.stdin.flush()
    told = solver.stderr.read().splitlines()
    assert [
        line for line in told if b" lines answered" not in line
    ] == []  # progress, where it takes long
    solver.stderr.close()
    assert solver.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "solve takes expressions, or --file with one expression a line"),
        (["1", "--file", "x"], "solve takes expressions, or --file with one expression a line"),
        (["--file", "{tmp}/missing"], "No such file or directory {tmp}/missing"),
        (["--file", "{tmp}"], "Is a directory {tmp}"),
        (["1", "--decode", "fast"], "decode: input should be 'auto', 'parallel' or 'sequential'"),
        (["1", "--attention", "sparse"], "attention: input should be 'auto', 'dense' or 'lines'"),
        (
            ["1", "--attention", "flex"],
            "attention: input should be 'auto', 'dense' or 'lines', got",
        ),
        (
            ["1", "--attention", "dense", "--decode", "parallel"],
            "decode 'parallel' needs a calibrated bias of lines and attention 'auto' or 'lines'",
        ),
    ],
)
def test_bad_arguments_are_one_line(tiny_abc, tmp_path, capfd, arguments, message):
    arguments = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert entry.run(["solve", str(tiny_abc.path), *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert message.replace("{tmp}", str(tmp_path)) in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("way", ["attention=lines", "decode=parallel"])
def test_a_vanilla_model_is_not_read_along_lines(tiny_abc, way):
    with pytest.raises(InputError, match="needs a calibrated bias of lines"):
        Run.open(tiny_abc.path / "vanilla", set=[way])


def test_every_way_answers_alike(tiny_abc, monkeypatch):
    expressions = ["9" * 150, "9" * 40 + "8", "123", "0"]
    right = ["1" + "0" * 150, "9" * 41, "124", "1"]
    for way in ("decode=parallel", "decode=sequential", "attention=dense", "attention=lines"):
        assert Run.open(tiny_abc.path, set=[way]).solve_many(expressions) == right
    called = []
    monkeypatch.setattr(
        decoding, "decode_in_parallel", lambda *args, **options: called.append("parallel")
    )
    Run.open(tiny_abc.path, set=["decode=sequential"]).solve("1")
    assert called == []
    Run.open(tiny_abc.path, set=["decode=parallel"]).solve("1")
    assert called == ["parallel"]


def test_letters_of_other_scripts_are_not_digits():
    """`lower` makes the Kelvin sign a k, which is a digit in base 36; it is still refused."""
    with pytest.raises(ValueError, match="unexpected '\N{KELVIN SIGN}' at position 2"):
        TASKS["successor"](36).parse("1\N{KELVIN SIGN}")
    assert TASKS["successor"](36).parse("1Kz") == ["1kz"]
