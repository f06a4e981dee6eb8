"""Reproducing the paper's tables: which cells there are, what is kept of them, what is written."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lengthwise.cli.entry import run as run_cli
from lengthwise.evaluation.curve import Score
from lengthwise.reproduce import BUDGETS, TARGETS, Cell, cells_of, draw_figures, measure, remaining
from lengthwise.reproduce.cells import (
    PROTOCOLS,
    ROWS,
    TABLE_TASKS,
    TABLES,
    TRANSFERS,
    config_of,
)
from lengthwise.reproduce.runner import CELLS, RECORD, Record, finished
from lengthwise.reproduce.tables import markdown, paper_results, reported, tidy, write_tables
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError
from lengthwise.tasks import TASKS

SHARED = Path(__file__).parents[2] / "shared" / "data" / "paper_results.csv"


def score(length: int, correct: int, n: int = 200, width: int = 61) -> Score:
    """A score of addition with what the tables do not read filled in."""
    return Score(
        *("addition", 10, "vanilla", 0, 0, "uniform", length, width, "test", n, correct),
        *(0.0, 1.0, 0.0, 0.1),
    )


def record(cell: Cell, *scores: Score, interpolates: bool = True) -> Record:
    return Record(cell, interpolates, 100, "", 1.0, scores)


# --- the paper's numbers ---


def test_the_paper_s_numbers_are_shipped_whole():
    found = {key: share for key, (share, _) in paper_results().items()}
    assert {table for table, _, _, _ in found} == {"table1", "table3"}
    # From tables 1 and 3 of arXiv 2310.11984v3.
    assert found["table1", "addition", "abc", 60] == pytest.approx(0.998)
    assert found["table3", "nx1", "window1", 10] == pytest.approx(0.06)
    assert found["table3", "parity", "scratchpad", 6] == pytest.approx(0.2923)
    assert found["table1", "addition", "rpe", 60] is None


@pytest.mark.skipif(not SHARED.exists(), reason="the file they were copied from is elsewhere")
def test_the_shipped_numbers_are_those_that_were_copied():
    with SHARED.open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(paper_results())


def test_every_row_of_the_paper_has_cells_or_is_of_other_work():
    ours = {
        (cell.task, cell.row) for t in ("table1", "table3") for cell in cells_of(t, BUDGETS["full"])
    }
    names = {("parity", "scratchpad"): ("parity", "vanilla")}
    names["parity", "classification"] = ("parity_classification", "classification")
    for _, task, row, _ in paper_results():
        if row != "classification_randomized_pe":
            assert names.get((task, row), (task, row)) in ours, (task, row)


# --- cells ---


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("target", TARGETS)
def test_cells_stand_after_what_they_need_and_have_settings(target, budget):
    cells = cells_of(target, BUDGETS[budget])
    assert len(set(cells)) == len(cells)
    for place, cell in enumerate(cells):
        assert cell.needs is None or cell.needs in cells[:place]
        assert cell.row in ROWS
        config = config_of(cell, BUDGETS[budget])
        assert config.task == cell.task
        assert config.seed == cell.seed
        if cell.protocol == "padded":
            assert config.width == max(BUDGETS[budget].lengths) + TASKS[cell.task].growth
        else:
            assert config.data.width is None
        assert config.evaluation.padding == "training"
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.seed for cell in cells} == set(BUDGETS[budget].seeds)


def test_tables_have_every_task_row_and_protocol():
    for target in ("table1", "table3"):
        found = {(c.task, c.row, c.protocol) for c in cells_of(target, BUDGETS["standard"])}
        rows = [row for row in TABLES[target][0] if row != "classification"]
        assert {(t, r, p) for t in TABLE_TASKS for r in rows for p in PROTOCOLS} <= found


def test_windows_align_the_operands_and_nothing_else_does():
    budget = BUDGETS["standard"]
    assert config_of(Cell("addition", "nope_window1", "short", 0), budget).layout().interleaves
    assert config_of(Cell("nx1", "window1_cpi3", "padded", 0), budget).layout().interleaves
    assert not config_of(Cell("successor", "window1", "short", 0), budget).layout().interleaves
    assert not config_of(Cell("addition", "rope", "short", 0), budget).layout().interleaves


def test_transfers_are_between_tasks_that_are_laid_out_alike():
    for source, target in TRANSFERS:
        kinds = [[segment.kind for segment in TASKS[t].segments] for t in (source, target)]
        assert kinds[0] == kinds[1]


# --- tables ---


def test_a_table_shows_all_seeds_their_mean_and_the_paper():
    cells = [Cell("addition", "abc", "padded", seed) for seed in (1, 0)]
    records = [record(cells[0], score(60, 190)), record(cells[1], score(60, 200))]
    text = markdown("table1", records)
    assert "| addition | abc | padded | 2 of 2 | 0 of 2 | 100, 95 (mean 97.5; " in text
    assert "; paper 99.8 |" in text


def test_a_table_never_rounds_to_all_or_none():
    cell = Cell("successor", "abc", "short", 0)
    nearly = markdown("table1", [record(cell, score(6, 99_999, 100_000))])
    assert ">99.99 (mean >99.99" in nearly
    hardly = markdown("table1", [record(cell, score(6, 1, 100_000))])
    assert "<0.01 (mean <0.01" in hardly


def test_a_table_says_where_there_is_no_model():
    cell = Cell("nx1", "abc_paper", "padded", 0)
    other = record(Cell("nx1", "abc", "padded", 0), score(6, 200))
    text = markdown("table1", [record(cell, interpolates=False), other])
    assert "| nx1 | abc_paper | padded | 0 of 1 |  | no model; paper 100 |" in text


def test_tidy_lines_hold_one_score_each():
    cell = Cell("addition", "vanilla", "padded", 2)
    names, *lines = tidy("table1", [record(cell, score(6, 100), score(10, 0))])
    rows = [dict(zip(names, line, strict=True)) for line in lines]
    assert [row["length"] for row in rows] == [6, 10]
    assert rows[0]["accuracy"] == 0.5
    assert [row["paper"] for row in rows] == [1.0, 0.0]
    assert rows[0]["seed"] == 2


def test_parity_is_compared_with_what_the_paper_calls_scratchpad():
    assert reported("table3", Cell("parity", "vanilla", "short", 0), 6) == (0.2923, "")
    share, note = reported(
        "table3", Cell("parity_classification", "classification", "short", 0), 20
    )
    assert share == pytest.approx(0.52)
    assert "Deletang" in note


def test_cells_that_others_need_are_not_shown_in_their_tables(tmp_path):
    shown = record(Cell("parity", "transfer", "short", 0, "successor"), score(6, 200))
    needed = record(Cell("subtraction", "abc", "short", 0), score(6, 200))
    files = write_tables("transfer", [shown, needed], tmp_path)
    assert [path.name for path in files] == ["transfer.csv", "transfer.md"]
    text = files[1].read_text()
    assert "transfer from successor" in text
    assert "subtraction" not in text
    assert "subtraction" not in write_tables("table1", [shown, needed], tmp_path)[1].read_text()


# --- measuring ---


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Path, list[Cell], list[Record]]:
    """Two cells of the smallest budget, the second beginning with the first; do not write there."""
    out = tmp_path_factory.mktemp("reproduce")
    cells = [Cell("successor", row, "short", 0) for row in ("vanilla", "abc_paper")]
    cells.append(Cell("successor", "abc_paper", "padded", 0))
    told: list[str] = []
    records = measure(
        *(cells[:2], "smoke", out), workers=1, on_progress=lambda r, left: told.append(str(left))
    )
    assert told == ["1 of 2 cells remain, about 1 min.", "All 2 cells are done."]
    return out, cells, records


def test_cells_are_measured_and_kept(measured):
    out, cells, records = measured
    assert [r.cell for r in records] == cells[:2]
    for one in records:
        assert [s.length for s in one.scores] == list(BUDGETS["smoke"].lengths)
        assert one.scores[0].n == 18  # as many as there are numbers of three digits in base 3
    run = Run.open(out / CELLS / cells[1].name / "model")
    assert run.method == "calibrated"
    assert finished(cells, out) == records


@pytest.mark.trains
def test_the_row_abc_trains_until_its_model_is_proven(measured):
    """The smallest budget is content with a model that is nearly right, which its proof is not."""
    out, cells, _ = measured
    one = Cell("successor", "abc", "short", 0)
    (found,) = measure([cells[0], one], "smoke", out, workers=1)[1:]
    assert found.proven
    assert (out / CELLS / one.name / "model" / "certificate.json").exists()
    assert "| successor | abc | short | 1 of 1 | 1 of 1 | 100 (mean 100;" in markdown(
        "table1", [found]
    )


def test_rows_and_a_protocol_are_chosen_with_what_they_begin_with(tmp_path, capsys):
    """Four tasks, the model of each and the one that it is calibrated from."""
    command = [
        "reproduce",
        "table1",
        "--budget",
        "smoke",
        "--out",
        str(tmp_path),
        "--estimate",
        "--json",
    ]
    assert run_cli([*command, "--rows", "abc", "--protocol", "padded"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == 8
    assert run_cli([*command, "--rows", "rope"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == 8
    for wrong, said in (("abd", "'abc'"), ("window1", "no cell of these targets"), ("", "row")):
        assert run_cli([*command, "--rows", wrong]) == 2
        assert said in capsys.readouterr().err
    assert run_cli([*command, "--protocol", "long"]) == 2
    assert "short" in capsys.readouterr().err


def test_what_is_done_is_not_done_again(measured, monkeypatch):
    out, cells, records = measured
    monkeypatch.setattr("lengthwise.reproduce.runner.measure_cell", None)
    assert measure(cells[:2], "smoke", out, workers=1) == records
    left = remaining(cells, BUDGETS["smoke"], out, workers=2)
    assert (left.cells, left.done) == (3, 2)
    assert left.seconds > 0


def test_budgets_do_not_meet_in_one_folder(measured):
    with pytest.raises(InputError, match="was begun with budget 'smoke'"):
        measure(measured[1], "standard", measured[0])


def test_a_broken_record_is_named(measured, tmp_path):
    cell = measured[1][0]
    (tmp_path / CELLS / cell.name).mkdir(parents=True)
    (tmp_path / CELLS / cell.name / RECORD).write_text("{}")
    with pytest.raises(InputError, match="does not hold a cell"):
        finished([cell], tmp_path)


def test_figures_are_drawn_from_cells(measured, tmp_path):
    out, _, records = measured
    drawn = draw_figures(records, BUDGETS["smoke"], out)
    names = {path.name for path in drawn}
    assert {"accuracy-short.png", "attention-successor.png", "directions-successor.png"} <= names
    assert {"bias-successor-abc_paper.png", "windows.png"} <= names
    for path in drawn:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_cell_without_a_model_draws_nothing(measured, tmp_path):
    nothing = record(Cell("parity", "abc", "short", 0), interpolates=False)
    drawn = draw_figures([nothing], BUDGETS["smoke"], tmp_path)
    assert not [path for path in drawn if "parity" in path.name]


# --- the command ---


def test_what_is_done_is_written_without_measuring_the_rest(measured, capsys, monkeypatch):
    monkeypatch.setattr("lengthwise.reproduce.runner.measure_cell", None)
    arguments = ["reproduce", "table1", "--budget", "smoke", "--done", "--out"]
    assert run_cli([*arguments, str(measured[0])]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == ["table1.csv", "table1.md"]
    assert "| successor | abc_paper | short |" in written[1].read_text()
    empty = measured[0] / "empty"
    assert run_cli([*arguments, str(empty)]) == 2
    assert "no cell in" in capsys.readouterr().err
    assert not empty.exists()
    assert run_cli([*arguments, str(empty), "--estimate"]) == 2
    assert "choose one" in capsys.readouterr().err


def test_the_command_says_how_much_remains(tmp_path, capsys):
    arguments = [
        "reproduce",
        "table3",
        "--budget",
        "smoke",
        "--out",
        str(tmp_path / "x"),
        "--estimate",
    ]
    assert run_cli([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cells"] == len(cells_of("table3", BUDGETS["smoke"]))
    assert told["done"] == 0
    assert told["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table2"], "unknown target 'table2'; did you mean 'table3'?"),
        (["table1", "--budget", "smok"], "unknown budget 'smok'; did you mean 'smoke'?"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(arguments, message, capsys):
    assert run_cli(["reproduce", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.trains
def test_asked_to_end_it_ends_with_its_workers(tmp_path):
    """A real process and its workers, a real SIGTERM while they train: nothing of them is left."""
    out = tmp_path / "tables"
    command = [sys.executable, "-m", "lengthwise", "reproduce", "table3", "--budget", "smoke"]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("cells/*/model/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    # The workers write to the same stderr, which is at its end only when they are.
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("lengthwise: interrupted; cells that are done are kept")
