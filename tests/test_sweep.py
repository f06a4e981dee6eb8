"""Sweeps: what is done is kept, what is lost is done again, and the same comes out however it went."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lengthwise as lw
from lengthwise import tasks
from lengthwise.cli.entry import run as run_cli
from lengthwise.evaluation.curve import LengthCurve, wilson
from lengthwise.pipeline import run_abc
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError, make_config
from lengthwise.settings.own_methods import forget
from lengthwise.sweeps.grid import make_plan
from lengthwise.sweeps.jobs import Ended, Job, perform
from lengthwise.sweeps.local import LocalPool, cores, share_cores
from lengthwise.sweeps.loop import ATTEMPTS, State, run_jobs
from lengthwise.sweeps.results import CELLS
from lengthwise.sweeps.sweep import run_sweep
from lengthwise.training.trainer import train_run
from lengthwise.workers.process import find
from sweep_helpers import SMALL, SMALL_FILE, Here, results, small_plan, wait_for_rows

ROPE0 = "method=rope,seed=0"


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """The small sweep, undisturbed, in this process; do not write there."""
    out = tmp_path_factory.mktemp("sweep") / "whole"
    run_sweep(small_plan(), out, Here)
    return out


# --- the loop, with pools that only pretend ---


class Told:
    """A pool that answers as it is told, in the order in which jobs were handed out."""

    def __init__(self, slots: int = 1, **fates: list[str | None]) -> None:
        self.slots, self.fates = slots, fates
        self.log: list[str] = []
        self.running: list[str] = []

    def submit(self, job: Job) -> None:
        self.log.append(job.name)
        self.running.append(job.name)
        assert len(self.running) <= self.slots

    def wait(self, seconds: float) -> list:
        name = self.running.pop(0)
        fate = (self.fates.get(name) or [None]).pop(0) if self.fates.get(name) else None
        if fate == "stop":
            raise KeyboardInterrupt
        return [Ended(name, fate, 1.0, lost=fate == "lost")]

    def stop(self) -> None:
        self.log.append("(stop)")

    def close(self) -> None:
        self.log.append("(close)")


def jobs_named(*names: str, **needs: str) -> list[Job]:
    return [Job(name, "", Path(), needs=needs.get(name)) for name in names]


def test_jobs_begin_in_order_but_after_what_they_need():
    pool = Told(2)
    state = run_jobs(jobs_named("b", "a", "c", b="a", c="b"), pool)
    assert pool.log == ["a", "b", "c", "(close)"]
    assert state.done == {"a", "b", "c"}


def test_what_needs_a_failed_job_is_left_out():
    pool = Told(1, a=["no"])
    state = run_jobs(jobs_named("a", "b", "c", "d", b="a", c="b"), pool)
    assert pool.log == ["a", "d", "(close)"]
    assert state.done == {"d"}
    assert {name: ended.error for name, ended in state.failed.items()} == {"a": "no"}
    assert [job.name for job in state.left] == ["b", "c"]


def test_lost_jobs_are_handed_out_again_but_not_for_ever():
    pool = Told(1, a=["lost"] * (ATTEMPTS - 1), b=["lost"] * 99)
    state = run_jobs(jobs_named("a", "b", "c"), pool)
    assert pool.log == ["a"] * ATTEMPTS + ["b"] * ATTEMPTS + ["c", "(close)"]
    assert state.done == {"a", "c"}
    assert state.failed["b"].error == f"lost, {ATTEMPTS} times; it is not begun again"


def test_what_is_done_or_has_failed_is_not_begun():
    pool = Told()
    state = run_jobs(jobs_named("a", "b", "c"), pool, done=["a"], failed=[Ended("b", "no")])
    assert pool.log == ["c", "(close)"]
    assert (state.done, set(state.failed)) == ({"a", "c"}, {"b"})


def test_asked_to_stop_it_stops_the_pool_and_says_so():
    pool = Told(1, b=["stop"])
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs_named("a", "b", "c"), pool)
    assert pool.log == ["a", "b", "(stop)", "(close)"]


def test_the_time_left_is_that_of_jobs_that_are_alike():
    jobs = [Job(f"{kind}{n}", "", Path(), alike=kind) for kind in "xy" for n in range(4)]
    state = State({job.name: job for job in jobs}, slots=2)
    assert state.seconds_left() is None
    state.done, state.took = {"x0", "y0"}, {"x": [10.0], "y": [2.0, 4.0]}
    assert state.seconds_left() == pytest.approx((3 * 10 + 3 * 3) / 2)
    state.slots = 100
    assert state.seconds_left() == pytest.approx(10)


def test_a_job_is_its_line():
    job = Job("a", "lengthwise.sweeps.cell:run_cell", Path("/x"), {"k": [1, "é"]}, "b", "kind")
    assert Job.from_json(job.to_json()) == job
    assert "\n" not in job.to_json()


@pytest.mark.parametrize("name", ["os:system", "lengthwise.sweeps.cell", "lengthwisely:f", ""])
def test_only_work_of_the_package_is_done(name):
    with pytest.raises(InputError, match="names no work"):
        find(name)
    assert "names no work" in str(perform(Job("a", name, Path())).error)


def test_cores_are_never_shared_out_twice():
    assert share_cores(None, None) == (cores(), 1)
    for workers in (1, 2, 3, cores(), 2 * cores()):
        threads = share_cores(workers, None)[1]
        assert threads == 1 or workers * threads <= cores()
    assert share_cores(None, 2 * cores()) == (1, 2 * cores())


# --- cells and tables ---


@pytest.mark.trains
def test_a_cell_is_the_run_that_its_settings_describe(swept, tmp_path):
    """The oracle: the same settings trained and measured by hand."""
    cell = next(cell for cell in small_plan().cells if cell.name == ROPE0)
    with pytest.raises(RuntimeError, match="did not interpolate"):
        train_run(cell.config, tmp_path / "run")
    alone, of_sweep = Run.open(tmp_path / "run"), Run.open(swept / CELLS / ROPE0 / "run")
    assert alone.fingerprint == of_sweep.fingerprint
    assert of_sweep.method == "rope"


@pytest.mark.trains
def test_tables_hold_every_score_and_what_defines_it(swept):
    rows = list(csv.DictReader((swept / "results.csv").read_text().splitlines()))
    assert len(rows) == 4 * 2 * 2  # cells, lengths, suites
    wanted = {}
    for name in (f"method={m},seed={s}" for m in ("rope", "nope") for s in (0, 1)):
        for score in LengthCurve.load(swept / CELLS / name / "run"):
            wanted[name, score.suite, str(score.length)] = score
    for row in rows:
        score = wanted.pop((row["cell"], row["suite"], row["length"]))
        assert (row["task"], row["method"], row["seed"]) == (
            "successor",
            score.method,
            str(score.seed),
        )
        assert (int(row["n"]), int(row["correct"])) == (score.n, score.correct)
        assert float(row["low"]) == pytest.approx(wilson(score.correct, score.n)[0], abs=1e-6)
        assert row["model"] == score.model
    assert not wanted
    cells = list(csv.DictReader((swept / "cells.csv").read_text().splitlines()))
    assert [cell["state"] for cell in cells] == ["done"] * 4
    assert {cell["note"] for cell in cells} == {"does not interpolate"}
    assert {cell["steps"] for cell in cells} == {"160"}


@pytest.mark.trains
def test_the_page_shows_curves_and_names_what_is_missing(swept, tmp_path):
    whole = (swept / "report.html").read_text()
    assert "4 of 4 cells done" in whole
    assert "Cells without results" not in whole
    assert whole.count("<img") == 1
    assert "4 of 4 measured cells do not interpolate" in whole
    larger = small_plan(grid={"method": ["rope", "nope"], "seed": [0, 1, 2]})
    copy = _copied(swept, tmp_path)
    file = tmp_path / "larger.toml"
    file.write_text(SMALL_FILE.replace("seed = [0, 1]", "seed = [0, 1, 2]"))
    assert run_cli(["sweep", str(file), "--out", str(copy), "--done"]) == 0
    page = (copy / "report.html").read_text()
    assert "4 of 6 cells done, 2 missing" in page
    for cell in larger.cells:
        assert (f'<th scope="row">{cell.name}</th><td>missing</td>' in page) == (
            cell.axes["seed"] == 2
        )


@pytest.mark.trains
def test_names_in_the_page_are_text(tmp_path):
    case = {"name": "<script>alert(1)</script>", "training.max_steps": 20}
    swept = run_sweep(small_plan(grid={}, case=[case]), tmp_path / "out", Here)
    assert "<script>alert" not in swept.report.read_text()
    assert swept.plan.cells[0].name.startswith("case=_script_alert_1___script_-")


@pytest.mark.trains
def test_what_is_done_is_not_done_again(swept, tmp_path):
    copy, pool = _copied(swept, tmp_path), Here()
    run_sweep(small_plan(), copy, lambda: pool)
    assert pool.begun == []
    larger = small_plan(grid={"method": ["rope", "nope"], "seed": [0, 1, 2]})
    run_sweep(larger, copy, lambda: pool)
    assert pool.begun == ["method=rope,seed=2", "method=nope,seed=2"]
    assert set(results(swept).splitlines()) < set(results(copy).splitlines())


@pytest.mark.trains
def test_cells_of_other_settings_never_meet(swept, tmp_path, capsys):
    copy, file = _copied(swept, tmp_path), tmp_path / "other.toml"
    file.write_text(SMALL_FILE.replace("max_steps = 160", "max_steps = 180"))
    assert run_cli(["sweep", str(file), "--out", str(copy)]) == 2
    assert "was made with other settings" in capsys.readouterr().err
    assert results(copy) == results(swept)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no sweep"):
        run_sweep(small_plan(), tmp_path, Here)
    with pytest.raises(InputError, match="is a file"):
        run_sweep(small_plan(), tmp_path / "notes.txt", Here)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["notes.txt"]


@pytest.mark.trains
def test_a_failed_cell_is_reported_and_begun_again_only_when_asked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lengthwise.sweeps.pools.LocalPool", lambda workers, threads: Here())
    out, file = tmp_path / "out", tmp_path / "sweep.toml"
    text = SMALL_FILE.replace("seed = [0, 1]", "seed = [0]").replace("160", "20")
    file.write_text(text)
    in_the_way = out / CELLS / ROPE0 / "run"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("not a folder")
    (out / "sweep.json").write_text('{"format": "lengthwise-sweep/1"}')
    command = ["sweep", str(file), "--out", str(out), "--workers", "1"]
    assert run_cli(command) == 1
    told = capsys.readouterr()
    assert f"{ROPE0} failed: {in_the_way} is a file, not a folder" in told.err
    assert "1 of 2 cells done, 1 failed." in told.out
    assert "is a file, not a folder" in (out / "report.html").read_text()
    in_the_way.unlink()
    assert run_cli(command) == 1  # nothing is left to do, and it is said again
    assert "--retry begins them again" in capsys.readouterr().err
    assert run_cli([*command, "--retry", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 2
    assert not (in_the_way.parent / "failed.json").exists()


@pytest.mark.slow
def test_the_whole_method_is_a_cell_in_one_piece_or_in_stages(tiny_values, tiny_abc, tmp_path):
    """The oracle: `abc` with the same settings."""
    tables = {"grid": {"method": ["abc"], "seed": [1]}}
    tables["settings"] = {k: v for k, v in tiny_values.items() if k != "seed"}
    pool = Here()
    swept = run_sweep(make_plan({**tables, "stages": True}), tmp_path / "out", lambda: pool)
    name = "method=abc,seed=1"
    assert pool.begun == [f"{name}/train", f"{name}/retrain", name]
    found = [(s.method, s.model, s.size, s.suite, s.n, s.correct) for s in swept.curve]
    wanted = [(s.method, s.model, s.size, s.suite, s.n, s.correct) for s in tiny_abc.curve]
    assert found == wanted
    record = swept.standings[0].record
    assert record is not None
    assert record.proven is True
    assert record.interpolates
    # Another start finds nothing to do; so does one that makes no stages.
    for stages in (True, False):
        again = Here()
        run_sweep(make_plan({**tables, "stages": stages}), tmp_path / "out", lambda a=again: a)
        assert again.begun == []


@pytest.mark.trains
def test_where_the_vanilla_model_fails_the_cell_says_so(tmp_path):
    plan = small_plan(grid={"method": ["abc"], "seed": [0]}, stages=True)
    swept = run_sweep(plan, tmp_path / "out", Here)
    record = swept.standings[0].record
    assert record is not None
    assert (record.interpolates, record.note) == (False, "the vanilla model does not interpolate")
    assert {score.method for score in record.scores} == {"vanilla"}
    with pytest.raises(RuntimeError):
        run_abc(plan.cells[0].config, tmp_path / "alone")


# --- what a person asks ---


@pytest.mark.trains
def test_a_dry_run_lists_the_cells_and_writes_nothing(tmp_path, capsys):
    file, out = tmp_path / "sweep.toml", tmp_path / "out"
    file.write_text(SMALL_FILE)
    assert run_cli(["sweep", str(file), "--out", str(out), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [c["cell"] for c in told["cells"]] == [cell.name for cell in small_plan().cells]
    assert all(cell["state"] == "missing" and cell["seconds"] > 0 for cell in told["cells"])
    assert told["left"] == 4
    assert not out.exists()


@pytest.mark.trains
def test_a_dry_run_takes_its_times_from_cells_that_are_done(swept, tmp_path, capsys):
    file = tmp_path / "sweep.toml"
    file.write_text(SMALL_FILE.replace("seed = [0, 1]", "seed = [0, 1, 2]"))
    arguments = ["sweep", str(file), "--out", str(swept), "--dry-run", "--workers", "1"]
    assert run_cli(arguments) == 0
    told = capsys.readouterr()
    assert told.err == ""  # nothing had to be tried
    assert "2 cells are left. About" in told.out


@pytest.mark.trains
def test_from_python(swept, tmp_path):
    out = _copied(swept, tmp_path)
    made = lw.sweep(SMALL["grid"], settings=SMALL["settings"], out=out)
    assert str(made) == "4 of 4 cells done"
    assert len(made.curve) == 16
    assert made.report == out / "report.html"
    file = tmp_path / "sweep.toml"
    file.write_text(SMALL_FILE)
    assert lw.sweep(file, out=out).records() == made.records()
    with pytest.raises(InputError, match="has its own settings"):
        lw.sweep(file, out=out, settings={"task": "copy"})
    with pytest.raises(InputError, match="grid takes a dictionary of lists"):
        lw.sweep(3, out=out)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "local", "--slurm", "gpu"], "two clusters"),
        (["--minutes", "5"], "--minutes are of jobs of Slurm"),
        (["--gpus", "1"], "--gpus is of clusters"),
        (["--slurm", "gpu", "--gpus", "0.5"], "whole GPUs"),
        (["--dry-run", "--done"], "choose one"),
        (["--done"], "no cell in"),
    ],
)
def test_the_command_refuses_what_does_not_go_together(options, message, tmp_path, capsys):
    file = tmp_path / "sweep.toml"
    file.write_text(SMALL_FILE)
    assert run_cli(["sweep", str(file), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "module"), [("--ray", "ray"), ("--slurm", "submitit")])
def test_a_missing_extra_is_one_line(option, module, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    file = tmp_path / "sweep.toml"
    file.write_text(SMALL_FILE)
    assert run_cli(["sweep", str(file), "--out", str(tmp_path / "out"), option, "x"]) == 2
    err = capsys.readouterr().err
    assert "pip install 'lengthwise[" in err
    assert err.count("\n") == 1


# --- processes that die ---


@pytest.mark.trains
def test_a_worker_that_is_killed_amid_a_cell_changes_nothing(swept, tmp_path):
    """Real worker processes, a real SIGKILL: the cell runs again, and the table has the same bytes."""
    out, killed, lost = tmp_path / "out", [], []
    pool = LocalPool(2, 1)

    def watch(ended: Ended | None, state: State) -> None:
        if ended is not None and ended.lost:
            lost.append(ended.name)
        if not killed:
            folder = wait_for_rows(out)
            os.kill(pool.pids[folder.name], signal.SIGKILL)
            killed.append(folder.name)

    sweep = run_sweep(small_plan(), out, lambda: pool, watch=watch)
    assert lost == killed
    assert len(lost) == 1
    assert str(sweep) == "4 of 4 cells done"
    assert results(out) == results(swept)


@pytest.mark.trains
@pytest.mark.parametrize("kind", ["SIGINT", pytest.param("SIGKILL", marks=pytest.mark.slow)])
def test_stopped_it_leaves_whole_cells_only_and_goes_on(swept, tmp_path, kind):
    """A real command, and a real Ctrl-C; or the command is killed, and its workers see to themselves."""
    file, out = tmp_path / "sweep.toml", tmp_path / "out"
    file.write_text(SMALL_FILE)
    command = [sys.executable, "-m", "lengthwise", "sweep", str(file), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    begun = wait_for_rows(out)
    process.send_signal(getattr(signal, kind))
    # Workers write to the same stderr: it is at its end only when they are.
    _, err = process.communicate(timeout=60)
    if kind == "SIGINT":
        assert process.returncode == 2
        assert err.splitlines()[-1].startswith("lengthwise: interrupted; cells that are done are")
        assert (out / "results.csv").exists()
    assert not (begun / "cell.json").exists()
    assert (begun / "run" / "checkpoint.pt").exists()
    for cell in out.glob(f"{CELLS}/*/cell.json"):
        assert json.loads(cell.read_text())["scores"]
    run_sweep(small_plan(), out, Here)
    assert results(out) == results(swept)


def _copied(out: Path, folder: Path) -> Path:
    """A copy of a sweep, to write in."""
    import shutil

    shutil.copytree(out, folder / "copy")
    return folder / "copy"


def test_settings_are_the_same_in_file_and_tables(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(SMALL_FILE)
    from lengthwise.sweeps.grid import load_plan

    assert load_plan(file).cells == small_plan().cells
    assert make_config(small_plan().cells[0].given) == small_plan().cells[0].config


@pytest.mark.trains
def test_tasks_and_methods_of_ones_own_are_cells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = """
import lengthwise as lw

class Plus(lw.Transducer):
    name = "plus"
    segments = (lw.Segment("a", "operand"),)
    growth, states, example = 0, 1, ("12", "12")

    def step(self, state, digit):
        return 0, digit
"""
    method = """
import lengthwise as lw

class Short(lw.Method):
    name, paper, arxiv = "short", "ours", ""
    settings = {"data.input_order": "reversed"}
"""
    (tmp_path / "mine.py").write_text(task)
    (tmp_path / "short.py").write_text(method)
    settings = {**SMALL["settings"]}
    del settings["task"]
    settings["training"] = {**settings["training"], "max_steps": 20}
    grid = {"task": ["successor", "mine.py"], "method": ["nope", "short.py"]}
    plan = make_plan({"grid": grid, "settings": settings})
    try:
        # In other processes, which know nothing of these files but what they are told.
        swept = lw.sweep(grid, settings=settings, out="out", workers=1, progress=False)
        assert [standing.failure for standing in swept.of("failed")] == []
        assert {(s.cell.config.task, s.cell.method) for s in swept.of("done")} == {
            (name, method) for name in ("successor", "plus") for method in ("nope", "short.py")
        }
        assert {c.name: c.hash for c in plan.cells} == {c.name: c.hash for c in swept.plan.cells}
        (tmp_path / "mine.py").write_text(task.replace("0, digit", "0, 9 - digit"))
        with pytest.raises(InputError, match=r"task=mine\.py"):  # done under another rule
            lw.sweep(grid, settings=settings, out="out", workers=1, progress=False)
        with pytest.raises(
            InputError, match=r"names, or files such as my_task\.py, which every work"
        ):
            lw.sweep({"task": [lw.Transducer]}, out="other")
        with pytest.raises(InputError, match=r"can't read .*none.py"):
            lw.sweep({"task": ["none.py"]}, out="other")
    finally:
        tasks.TASKS.pop("plus", None)
        tasks.make_task.cache_clear()
        forget("short")
