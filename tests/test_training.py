"""Training: repeatable, resumable to the same weights, the same on one process and on two."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from lengthwise.bias import CalibratedBias, Line
from lengthwise.calibration.maps import capture
from lengthwise.pipeline import run_abc
from lengthwise.runs.folder import CHECKPOINT, CONFIG, METRICS, WEIGHTS
from lengthwise.runs.metrics import Metrics, read_metrics
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError, make_config
from lengthwise.training import trainer
from lengthwise.training.batches import Batches
from lengthwise.training.processes import rank_rows
from lengthwise.training.schedule import Schedule
from lengthwise.training.trainer import NotInterpolatedError, Trainer, train_run

STEPS = 60


def small(task="successor", **training):
    """Settings of a training that ends after 60 steps, far from its criterion."""
    return make_config(
        {
            "task": task,
            "data": {"length": 3},
            "model": {"width": 16, "heads": 2, "layers": 1, "feed_forward": 32, "dropout": 0.1},
            "training": {
                "batch_size": 16,
                "max_steps": STEPS,
                "evaluate_every": 20,
                "checkpoint_every": 20,
                "validation_problems": 32,
                "exact_match": 1.0,
                "loss": 1e-6,
                **training,
            },
        }
    )


def train(path, config=None, **arguments):
    """Train to the end and return the run, criterion met or not."""
    with pytest.raises(NotInterpolatedError) as caught:
        train_run(config or small(), path, **arguments)
    return caught.value.run


def curve(run):
    """Everything in the metrics that does not depend on the clock."""
    clock = ("seconds", "tokens_per_second")
    return [{key: row[key] for key in row if key not in clock} for row in run.metrics()]


def same_weights(one, two):
    first, second = load_file(one.path / WEIGHTS), load_file(two.path / WEIGHTS)
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


@pytest.mark.trains
def test_same_seed_gives_bitwise_the_same_curve_and_weights(tmp_path):
    one, two = train(tmp_path / "one"), train(tmp_path / "two")
    assert curve(one) == curve(two)
    assert [row["step"] for row in curve(one)] == [20, 40, 60]
    assert same_weights(one, two)


def test_another_seed_gives_other_weights(tmp_path):
    one = train(tmp_path / "one")
    two = train(tmp_path / "two", small().model_copy(update={"seed": 1}))
    assert not same_weights(one, two)


def test_training_lowers_the_loss(tmp_path):
    config = small(max_steps=200, evaluate_every=50, learning_rate=1e-2)
    losses = [row["loss"] for row in train(tmp_path / "run", config).metrics()]
    assert losses[-1] < 0.7 * losses[0]


def test_metrics_name_what_was_measured(tmp_path):
    row = train(tmp_path / "run").metrics()[-1]
    assert set(row) == set(Metrics.__dataclass_fields__)
    assert row["learning_rate"] == pytest.approx(2e-3 * STEPS / 100)
    assert row["tokens_per_second"] > 0
    assert row["phase"] == "stable"


class KilledError(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("crash_at", [20, 40])
def test_resume_after_a_crash_reaches_the_same_weights(tmp_path, crash_at):
    def crash(metrics):
        if metrics.step == crash_at:
            raise KilledError

    whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train_run(small(), tmp_path / "cut", on_progress=crash)
    with (tmp_path / "cut" / METRICS).open("a") as file:
        file.write('{"step": 41, "lo')  # a row that the crash cut off
    resumed = train(tmp_path / "cut", resume=True)
    assert same_weights(whole, resumed)
    assert [row["step"] for row in resumed.metrics()] == [20, 40, 60]
    state = torch.load(resumed.path / CHECKPOINT, weights_only=True)
    assert state["step"] == STEPS
    assert set(state["optimizer"]) == {"state", "param_groups"}


def varied(**data):
    """Settings of a training whose batches have widths of their own."""
    values = small().model_dump(mode="json")
    return make_config({**values, "data": {"length": 3, "width": 9, "widths": "varied", **data}})


def test_batches_of_varied_width_are_the_same_problems():
    wide, narrow = Batches(varied(widths="fixed")), Batches(varied())
    widths = set()
    for step in range(60):
        (source, target), (cut, short) = (
            (batch.source, batch.target) for batch in (wide.train(step), narrow.train(step))
        )
        width = cut.shape[1]
        widths.add(width)
        # Only padding is cut off: zeros on the left of the operand, and of the answer's end.
        assert source.shape[1] == 9
        assert cut.equal(source[:, 9 - width :])
        assert not source[:, : 9 - width].any()
        assert short[:, : width + 1].equal(target[:, : width + 1])
        assert not target[:, width + 1 : 10].any()
    # Batches of 16 hold a number of three digits, whose answer needs a fourth.
    assert widths == {4, 5, 6, 7, 8, 9}
    assert narrow.validation(16).source.shape[1] == 9


def test_varied_widths_resume_to_the_same_weights(tmp_path):
    def crash(metrics):
        if metrics.step == 40:
            raise KilledError

    whole = train(tmp_path / "whole", varied())
    with pytest.raises(KilledError):
        train_run(varied(), tmp_path / "cut", on_progress=crash)
    assert same_weights(whole, train(tmp_path / "cut", varied(), resume=True))
    assert not same_weights(whole, train(tmp_path / "fixed", varied(widths="fixed")))


def test_the_papers_data_trains(tmp_path):
    values = small("addition").model_dump(mode="json")
    config = make_config({**values, "data": {"distribution": "paper"}})
    assert (config.data.length, config.width, config.covered_length) == (7, 8, 6)
    run = train(tmp_path / "run", config)
    assert len(run.metrics()) == 3
    assert capture(run).length == 6


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_request_finishes_the_step_and_keeps_it(tmp_path, kind):
    def stop(metrics):
        if metrics.step == 40:
            signal.raise_signal(kind)

    before = signal.getsignal(kind)
    with pytest.raises(KeyboardInterrupt):
        train_run(small(checkpoint_every=1000), tmp_path / "cut", on_progress=stop)
    assert signal.getsignal(kind) is before
    state = torch.load(tmp_path / "cut" / CHECKPOINT, weights_only=True)
    assert state["step"] == 40
    resumed = train(tmp_path / "cut", small(checkpoint_every=1000), resume=True)
    assert same_weights(train(tmp_path / "whole", small(checkpoint_every=1000)), resumed)


def test_resume_refuses_other_settings(tmp_path):
    train(tmp_path / "run")
    with pytest.raises(
        InputError,
        match=r"begun with training\.learning_rate=0\.002; --resume can't go on with .*=0\.0001",
    ):
        train_run(small(learning_rate=1e-4), tmp_path / "run", resume=True)


def test_more_steps_go_on_to_the_same_weights(tmp_path):
    """A training that ended at its last step continues; so does one that was asked for steps alone."""
    train(tmp_path / "run", small(max_steps=20))
    assert same_weights(train(tmp_path / "run", resume=True), train(tmp_path / "whole"))
    counted = small(max_steps=40, until="max_steps")
    train_run(counted, tmp_path / "counted")
    more = train_run(small(until="max_steps"), tmp_path / "counted", resume=True)
    assert [row.step for row in read_metrics(more)] == [20, 40, 60]
    assert same_weights(more, train_run(small(until="max_steps"), tmp_path / "both"))


def test_fewer_steps_than_are_done_leave_settings_that_could_have_trained_them(tmp_path):
    train(tmp_path / "run")
    run = train(tmp_path / "run", small(max_steps=20), resume=True)
    assert Run.open(run.path).config.training.max_steps == read_metrics(run)[-1].step == 60


def test_what_is_not_set_on_resume_stays_as_it_was(tmp_path):
    """Neither the task's own defaults nor those of the second training count as set."""
    begun = make_config(small().model_dump(mode="json", exclude_unset=True), ["data.length=2"])
    train(tmp_path / "run", begun)
    config = make_config({"task": "successor"}, ["training.max_steps=80", "evaluation.samples=7"])
    run = train(tmp_path / "run", config, resume=True)
    assert run.config.model_dump(exclude={"training", "evaluation"}) == begun.model_dump(
        exclude={"training", "evaluation"}
    )
    assert (run.config.training.max_steps, run.config.training.batch_size) == (80, 16)
    assert Run.open(run.path).config.evaluation.samples == 7
    assert not make_config({}).for_retraining().training.model_fields_set


@pytest.mark.parametrize(
    ("assignment", "both"),
    [
        ("seed=3", "seed=0; --resume can't go on with seed=3"),
        ("base=7", "base=10; --resume can't go on with base=7"),
        ("data.length=4", "data.length=3; --resume can't go on with data.length=4"),
        ("model.dropout=0.0", "model.dropout=0.1; --resume can't go on with model.dropout=0.0"),
        ("training.loss=0.5", "training.loss=1e-06; --resume can't go on with training.loss=0.5"),
    ],
)
def test_a_setting_that_shaped_what_was_trained_is_refused_by_name(tmp_path, assignment, both):
    train(tmp_path / "run", small(max_steps=20))
    before = (tmp_path / "run" / "config.json").read_bytes()
    config = make_config({"task": "successor"}, [assignment])
    with pytest.raises(InputError, match=f"was begun with {re.escape(both)}"):
        train_run(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


@pytest.mark.trains
@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["model.positions=learned", "model.max_positions=3"],
            "learned positions of this model end",
        ),
        (["training.initial=nowhere"], "nowhere is not a run"),
        (["data.drill=['1+1']"], r"data\.drill: unexpected"),
        (["base=2", "data.length=1"], "holds no problem of copy of length 1 to 1"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_refused_leaves_no_folder(tmp_path, assignments, message, whole):
    config = make_config({"task": "copy"}, assignments)
    with pytest.raises(InputError, match=message):
        run_abc(config, tmp_path / "run") if whole else train_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_refused_leaves_a_run_that_is_there_alone(tmp_path):
    train(tmp_path / "run", small(max_steps=20))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    config = make_config({"task": "copy"}, ["model.positions=learned", "model.max_positions=3"])
    with pytest.raises(InputError, match="learned positions"):
        train_run(config, tmp_path / "run", force=True)
    assert {path: path.read_bytes() for path in before} == before


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    run = train(tmp_path / "run")
    before = (run.path / WEIGHTS).read_bytes(), (run.path / METRICS).read_bytes()
    train(tmp_path / "run", resume=True)
    assert ((run.path / WEIGHTS).read_bytes(), (run.path / METRICS).read_bytes()) == before


def test_a_run_that_lacks_its_checkpoint_gets_no_more_steps(tmp_path):
    """A copy of what `solve` needs: it is told what is missing, and keeps the settings that it has."""
    path = tmp_path / "run"
    with pytest.raises(NotInterpolatedError):
        train_run(small(max_steps=4), path)
    (path / CHECKPOINT).unlink()
    before = (path / CONFIG).read_bytes()
    with pytest.raises(
        InputError, match=r"lacks checkpoint\.pt, without which .* past step 4; copy it"
    ):
        train_run(small(max_steps=8), path, resume=True)
    assert (path / CONFIG).read_bytes() == before
    with pytest.raises(NotInterpolatedError, match="within 4 steps"):
        train_run(small(max_steps=4), path, resume=True)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + b"0" * 100])
def test_a_broken_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "run"

    def crash(metrics):
        raise KilledError

    with pytest.raises(KilledError):
        train_run(small(), path, on_progress=crash)
    (path / CHECKPOINT).write_bytes(content)
    with pytest.raises(
        InputError, match=r"checkpoint\.pt is not a .* of this run: it is broken, or no"
    ):
        train_run(small(), path, resume=True)


def test_a_checkpoint_is_never_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / "run"

    def crash(metrics):
        raise KilledError

    with pytest.raises(KilledError):
        train_run(small(), path, on_progress=crash)
    torch.save({"model": Trap()}, path / CHECKPOINT)
    with pytest.raises(InputError, match="is not a checkpoint"):
        train_run(small(), path, resume=True)
    assert not (tmp_path / "sprung").exists()


def test_training_with_a_bias_keeps_it_in_the_run(tmp_path):
    bias = CalibratedBias("successor", 2, [Line("a[c]", 1)])
    run = Run.open(train(tmp_path / "run", bias=bias).path)
    assert run.bias == bias
    assert run.method == "calibrated"


@pytest.mark.parametrize("content", ["{}\n", "[]\n", '{"step": 1}\n'])
def test_resume_refuses_metrics_of_another_form(tmp_path, content):
    run = train(tmp_path / "run")
    (run.path / METRICS).write_text(content)
    with pytest.raises(InputError, match=r"metrics\.jsonl does not hold metrics"):
        train_run(small(), tmp_path / "run", resume=True)


def test_the_lines_path_is_refused_for_a_vanilla_model(tmp_path):
    config = small().model_copy(update={"attention": "lines"})
    with pytest.raises(InputError, match="attention 'lines' needs a calibrated bias of lines"):
        train_run(config, tmp_path / "run")


def test_a_diverging_training_says_so(tmp_path):
    config = small(learning_rate=1e30, warmup_steps=0)
    with pytest.raises(FloatingPointError, match=r"lower training\.learning_rate"):
        train_run(config, tmp_path / "run")
    assert not (tmp_path / "run" / CHECKPOINT).exists()


@pytest.mark.trains
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [30, 37, 40])
def test_what_is_not_finite_is_never_kept_and_its_step_is_named(tmp_path, monkeypatch, at, number):
    real, steps = trainer.accumulated, itertools.count(1)

    def accumulated(loss, batch, weights, shards, count):
        value = real(loss, batch, weights, shards, count)
        if next(steps) == at:
            weights.whole.grad *= number
            value = value * number
        return value

    monkeypatch.setattr(trainer, "accumulated", accumulated)
    config = small(checkpoint_every=5, evaluate_every=20, keep_checkpoints_every=10)
    with pytest.raises(FloatingPointError, match=rf"not finite at step {at};.*is of before that"):
        train_run(config, tmp_path / "run")
    state = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)
    assert state["step"] == (at - 1) // 5 * 5
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert [row.step for row in read_metrics(Run.open(tmp_path / "run"))] == [20]
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {f"step-{step}" for step in range(10, at, 10)}


def test_of_kept_models_the_last_and_the_best_stay(tmp_path, monkeypatch):
    real, losses = Trainer._measure, {10: 5.0, 20: 0.5, 30: 0.7, 40: 4.0, 50: 4.0, 60: 0.6}

    def measure(self, source, target):
        metrics = real(self, source, target)
        rows = (self.run.path / METRICS).read_text().splitlines()
        row = json.loads(rows[-1]) | {"exact_match": 0.5, "validation_loss": losses[metrics.step]}
        (self.run.path / METRICS).write_text("\n".join([*rows[:-1], json.dumps(row)]) + "\n")
        return metrics

    monkeypatch.setattr(Trainer, "_measure", measure)
    config = small(evaluate_every=10, keep_checkpoints_every=10, keep_checkpoints=2)
    folder = train(tmp_path / "run", config).path / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"step-20", "step-50", "step-60"}
    assert all(Run.open(path).model for path in folder.iterdir())


def schedule(**settings):
    return Schedule(small(warmup_steps=10, learning_rate=1.0, loss=0.1, **settings).training)


def test_schedule_warms_up_then_stays():
    rates = [schedule().learning_rate(step) for step in (0, 4, 9, 10, 1000)]
    assert rates == pytest.approx([0.1, 0.5, 1.0, 1.0, 1.0])


def test_schedule_without_cooldown_ends_at_the_criterion():
    plan = schedule()
    assert not plan.measured(20, exact_match=0.99, loss=0.01, worst=0.1)
    assert not plan.measured(40, exact_match=1.0, loss=0.2, worst=0.1)
    assert plan.measured(60, exact_match=1.0, loss=0.01, worst=0.1)


def test_schedule_cools_down_to_zero_then_ends():
    plan = schedule(cooldown_steps=50)
    assert not plan.measured(40, exact_match=1.0, loss=0.01, worst=0.1)
    assert plan.phase == "cooldown"
    assert plan.learning_rate(40) == 1.0
    assert plan.learning_rate(65) == pytest.approx(0.5)
    assert not plan.measured(60, exact_match=1.0, loss=0.01, worst=0.1)
    assert plan.due(90)
    assert plan.measured(90, exact_match=1.0, loss=0.01, worst=0.1)


def test_schedule_warms_up_again_when_the_cooldown_was_in_vain():
    plan = schedule(cooldown_steps=50, worst_loss=0.05)
    plan.measured(40, exact_match=1.0, loss=0.01, worst=0.01)
    assert not plan.measured(90, exact_match=1.0, loss=0.01, worst=0.2)
    assert plan.phase == "stable"
    assert plan.learning_rate(90) == pytest.approx(0.1)
    assert plan.learning_rate(99) == pytest.approx(1.0)


def test_a_cooldown_in_vain_is_followed_by_longer_ones():
    plan, step, spans = schedule(cooldown_steps=50, worst_loss=0.05), 7, []
    for _ in range(6):
        assert not plan.measured(step, exact_match=1.0, loss=0.01, worst=0.01)
        began = step
        assert plan.due(began + plan.cooldown_steps)
        assert not plan.due(began + plan.cooldown_steps - 1)
        while plan.phase == "cooldown":
            step += 50
            # From the fifth on they begin at half of the rate of the one before.
            assert plan.learning_rate(step) == pytest.approx(
                (1 - (step - began) / plan.cooldown_steps) / 2 ** max(0, len(spans) - 3)
            )
            assert not plan.measured(step, exact_match=1.0, loss=0.01, worst=0.2)
        spans.append(step - began)
        step += 100
    assert spans == [50, 50, 100, 200, 400, 400]


def test_resume_remembers_the_cooldowns_that_were_in_vain(tmp_path):
    settings = {"exact_match": 0.0, "loss": 100.0, "worst_loss": 1e-9, "cooldown_steps": 10}
    whole = train(tmp_path / "whole", small(**settings))
    cut = train(tmp_path / "cut", small(**settings, max_steps=40))
    state = torch.load(cut.path / CHECKPOINT, weights_only=True)
    assert state["cooldowns"] == 1
    assert same_weights(train(cut.path, small(**settings), resume=True), whole)


def two_processes(*arguments):
    """One command under torchrun, on two gloo processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "lengthwise", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.trains
def test_two_processes_resume_with_the_bias_of_the_run(tmp_path):
    """The command that `Run.model` suggests names no bias: every process reads it from the run."""
    bias = CalibratedBias("successor", 2, [Line("a[c]", 1)])
    config = small(exact_match=0.0, loss=100.0, worst_loss=100.0, max_steps=40)
    config = config.model_copy(update={"device": "cpu"})
    config = config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0})})
    one = train_run(config, tmp_path / "one", bias=bias)
    Run.create(tmp_path / "two", config, bias)
    resume = ("train", tmp_path / "two" / "config.json", "--out", tmp_path / "two", "--resume")
    done = two_processes(*resume)
    assert "Interpolates after 20 steps" in done.stdout, done.stderr
    two = Run.open(tmp_path / "two")
    assert two.metrics()[0]["loss"] == pytest.approx(one.metrics()[0]["loss"], abs=1e-5)
    again = two_processes(*resume)  # a finished run is left as it is, by all processes
    assert (again.returncode, again.stdout) == (0, done.stdout)


@pytest.mark.slow
def test_one_process_that_is_asked_to_stop_stops_both_after_one_checkpoint(tmp_path):
    """Two gloo processes, a SIGTERM to the second alone; gone on with, the same bits as undisturbed."""
    config = small(max_steps=400, checkpoint_every=10_000).model_copy(update={"device": "cpu"})
    config = config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0})})
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    whole = two_processes("train", path, "--out", tmp_path / "whole")
    assert "did not interpolate within 400 steps" in whole.stderr
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "lengthwise", "train", str(path), "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        [*command, str(tmp_path / "two")], stderr=subprocess.PIPE, text=True, env=environment
    )
    metrics = tmp_path / "two" / "metrics.jsonl"
    until = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(_rank(process.pid, 1), signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "lengthwise: interrupted; what was finished is kept, and --resume continues it" in err
    state = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert 0 < state["step"] < 400
    assert not (tmp_path / "two" / WEIGHTS).exists()
    two_processes("train", path, "--out", tmp_path / "two", "--resume")
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "two"))
    for name in first:
        assert torch.equal(first[name], second[name]), name


def _rank(launcher: int, rank: int) -> int:
    """The process of a rank that torchrun started (Linux)."""
    for process in Path("/proc").iterdir():
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == launcher and f"RANK={rank}".encode() in variables:
            return int(process.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.trains
def test_the_pipeline_refuses_several_processes(tmp_path):
    done = two_processes("abc", "successor", "--out", tmp_path / "run")
    assert "lengthwise: the pipeline runs on one process; under torchrun use `train`" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.trains
def test_two_processes_follow_the_curve_of_one(tmp_path):
    """Two gloo processes under torchrun, each with half of every batch, against one process."""
    config = small("addition").model_copy(update={"device": "cpu"})
    config = config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0})})
    one = train(tmp_path / "one", config)
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    done = two_processes("train", path, "--out", tmp_path / "two")
    assert "did not interpolate within 60 steps" in done.stderr
    two = Run.open(tmp_path / "two")
    for before, after in zip(one.metrics(), two.metrics(), strict=True):
        for key in ("step", "loss", "validation_loss", "exact_match", "worst_loss"):
            assert after[key] == pytest.approx(before[key], abs=1e-5)
    first, second = load_file(one.path / WEIGHTS), load_file(two.path / WEIGHTS)
    for name in first:
        # Adam divides by the gradient's size, so where that is near zero rounding shows.
        torch.testing.assert_close(first[name], second[name], atol=2e-3, rtol=0)
    versions = json.loads((two.path / "versions.json").read_text())
    assert versions["torch"] == torch.__version__.split("+")[0]


def test_processes_share_every_batch():
    rows = [list(range(12))[rank_rows(12, rank, 3)] for rank in range(3)]
    assert sorted(itertools.chain(*rows)) == list(range(12))
    assert {len(part) for part in rows} == {4}
    with pytest.raises(InputError, match="must be a multiple of the 3 processes, got 16"):
        rank_rows(16, 0, 3)
    with pytest.raises(InputError, match=r"multiple of training\.accumulate, 3; got 16$"):
        rank_rows(16, 0, 1, 3)
    with pytest.raises(InputError, match="accumulate, 3; got 16, and each process takes 8"):
        rank_rows(16, 0, 2, 3)


@pytest.mark.trains
def test_bfloat16_multiplies_in_it_and_keeps_float32(tmp_path):
    config = small(precision="bfloat16")
    run = Run.create(tmp_path / "step", config, None)
    trainer = Trainer(config, run, Accelerator(cpu=True))
    seen = []
    trainer.bare.to_logits.register_forward_hook(lambda *parts: seen.append(parts[-1].dtype))
    trainer.one_step()
    assert seen == [torch.bfloat16]
    whole = trainer.weights.whole
    assert whole.dtype == whole.grad.dtype == torch.float32
    assert {own.dtype for own in trainer.bare.parameters()} == {torch.float32}
    # It learns as the other does, up to that type's eight bits; validation is in float32.
    whole, half = train(tmp_path / "whole"), train(tmp_path / "half", config)
    losses = [run.metrics()[-1]["validation_loss"] for run in (whole, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


@pytest.mark.trains
def test_a_compiled_model_takes_the_same_steps(tmp_path, monkeypatch):
    """The compiler itself takes a minute: what it would be given is traced, and run as it is.

    Attention's sums are in another order there, and Adam magnifies last bits: twenty steps keep them close.
    """
    compile_model = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda model, mode: compile_model(model, backend="aot_eager")
    )
    whole, compiled = (
        train(tmp_path / "whole", small(max_steps=20)),
        train(tmp_path / "two", small(max_steps=20, execution="compiled")),
    )
    weights = [load_file(run.path / WEIGHTS) for run in (whole, compiled)]
    assert weights[0].keys() == weights[1].keys()
    for name, own in weights[0].items():
        torch.testing.assert_close(weights[1][name], own, rtol=0, atol=1e-4)


def test_compiling_without_a_compiler_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match=r"training\.execution 'compiled' needs a C\+\+ compiler"):
        train_run(small(execution="compiled"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
