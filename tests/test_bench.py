"""Benchmarks: the baselines compute what ours computes, and the reports hold what they should."""

import json
from functools import partial

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lengthwise.bench import (
    BENCHMARKS,
    Report,
    Result,
    calibrate,
    decode,
    long,
    run_benchmarks,
    train,
)
from lengthwise.bench.models import bench_config, hand_bias
from lengthwise.bench.results import alternate, wanted
from lengthwise.bias import CLOSED
from lengthwise.bias.base import causal
from lengthwise.calibration import KAPPA_CROSS, KAPPA_SELF
from lengthwise.calibration import calibrate as calibrate_maps
from lengthwise.problems.layout import Layout
from lengthwise.settings.config import InputError
from lengthwise.tasks import TASKS

SMALL = {
    "matmul": {"sizes": (16,)},
    "train": {"tasks": ("addition",), "steps": 1, "sizes": (16,)},
    "calibrate": {"width": 12},
    "decode": {"lengths": (2, 5), "baseline_up_to": 2, "batch": 2},
    "lines": {"sizes": ((8, 2),), "widths": (4,)},
    "long": {"lengths": (3, 9), "long": (), "chain": 20},
    "solve": {"problems": 20, "length": 5, "strata": 2},
    "peers": {"lengths": (2,), "steps": 1, "batch": 2},
    "gpu": {
        "device": "cpu",
        "cases": [("successor", False, False), ("successor", False, True)],
        "steps": 1,
        "size": 16,
        "graphs": (False,),
    },
}


@pytest.fixture
def small(monkeypatch, tiny_abc):
    """Every benchmark at a size that takes no time, with a model that is trained already."""
    monkeypatch.setattr(long, "_ENOUGH", 9)
    monkeypatch.delitem(BENCHMARKS, "scale")  # starts a dozen processes: tested by itself
    for name, sizes in SMALL.items():
        if name in ("long", "solve"):
            sizes = {**sizes, "model": tiny_abc.calibrated}
        monkeypatch.setitem(BENCHMARKS, name, partial(BENCHMARKS[name], **sizes))


@pytest.mark.parametrize("calibrated", [False, True], ids=["vanilla", "calibrated"])
@pytest.mark.parametrize("task", ["addition", "successor"])
class TestTrainingBaseline:
    @pytest.mark.parametrize("cheapest", [False, True])
    def test_equals_our_model(self, task, calibrated, cheapest):
        pair = train.Pair(bench_config(task, calibrated), calibrated, cheapest)
        trainer = pair.trainer
        batch = trainer.batches.train(0)
        source, target = batch.source, batch.target
        ours = trainer.bare(source, target[:, :-1], trainer.plan).logits
        theirs = pair.baseline(source, target[:, :-1])
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)

    def test_takes_the_same_steps(self, task, calibrated):
        pair = train.Pair(bench_config(task, calibrated), calibrated)
        for _ in range(3):
            pair.trainer.loss_sum.zero_()
            pair.ours(1)
            torch.testing.assert_close(
                pair.baseline_step(), pair.trainer.loss_sum, rtol=0, atol=1e-4
            )
        pair.theirs(2)
        assert pair.step == 5

    def test_step_flops_are_those_that_torch_counts(self, task, calibrated):
        config = bench_config(task, calibrated)
        pair = train.Pair(config, calibrated)
        # The counter knows the products of this backend, and none of the fused one on the CPU.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            pair.baseline_step()
        assert train.step_flops(config) == counter.get_total_flops()


@pytest.mark.parametrize("task", [name for name in sorted(TASKS) if TASKS[name].writes is None])
def test_hand_bias_opens_what_every_column_needs(task):
    layout = Layout(TASKS[task](), 5)
    # Two heads for each of up to three operands.
    bias = hand_bias(task, 6)
    cross = bias.dense("cross", 0, layout, range(6)) > CLOSED
    for span in (span for span in layout.source_spans.values() if span.grows):
        # Row 3 reads the digits of significance 3 and 2.
        assert cross[:, 3, span.start : span.stop].any(dim=0).tolist() == [0, 1, 1, 0, 0]
    own = bias.dense("self", 0, layout, range(6)) > CLOSED
    assert own.equal(torch.eye(6, dtype=torch.bool).expand(6, -1, -1))


class TestCalibration:
    def test_auto_finds_the_lines_of_the_maps(self):
        assert calibrate_maps(calibrate.hand_maps()) == hand_bias("addition", 8)

    @pytest.mark.parametrize(
        ("site", "kappa"), [("cross", KAPPA_CROSS), ("self", KAPPA_SELF), ("cross", 1.0)]
    )
    def test_loops_equal_the_paper_policy(self, site, kappa):
        maps = calibrate.hand_maps()
        torch.manual_seed(0)
        maps.weights[site].mul_(torch.rand_like(maps.weights[site]))
        layout = Layout(TASKS["addition"](), 12)
        bias = calibrate_maps(maps, policy="paper", kappa_cross=kappa, kappa_self=kappa)
        loops = calibrate.loop_bias(maps.weights[site][-1], kappa, 13, layout.keys(site))
        dense = bias.dense(site, 0, layout, range(13))
        loops = torch.tensor(loops)
        if site == "self":
            loops += causal(13, range(13))
        torch.testing.assert_close(loops, dense, rtol=0, atol=1e-6)
        assert (dense > CLOSED).any()


def test_decoders_write_the_same():
    layout, decoders = decode.decoders(20)
    dense = decoders["dense"]()
    assert dense.shape == (16, layout.target_length) == (16, 22)
    assert (dense != layout.vocabulary.end).all()
    assert decoders["lines"]().equal(dense)
    assert decoders["torch.nn"]().equal(dense)


class TestReport:
    @pytest.mark.slow  # a minute: each of them runs once
    def test_all_benchmarks(self, small):
        said = []
        report = run_benchmarks(BENCHMARKS, repeats=2, on_progress=said.append)
        assert {result.benchmark for result in report.results} == set(BENCHMARKS)
        assert {words.split(":")[0] for words in said} == set(BENCHMARKS)
        far = [r for r in report.results if r.case.endswith("from float32 on the CPU")]
        assert all(result.value > 0 for result in report.results if result not in far)
        # Here it is the CPU itself that stands for a GPU.
        assert [r.value < 1e-4 for r in far] == [", float32:" in r.case for r in far]
        assert max(r.value for r in far) < 0.1
        cases = [result.case for result in report.results]
        assert len(set(cases)) == len(cases)
        for mode in ("vanilla", "calibrated"):
            assert {f"addition, {mode}", f"addition, {mode}: ratio"} <= set(cases)
        assert {"2 digits, torch.nn", "2 digits, lines", "5 digits, dense"} <= set(cases)
        assert "5 digits, torch.nn" not in cases
        assert {
            "20 nines: time",
            "20 nines: memory",
            "ratio to torch.nn without a cache",
        } <= set(cases)

    @pytest.mark.parametrize("there", [False, True])
    def test_without_names_the_gpu_is_measured_where_there_is_one(self, monkeypatch, there):
        for name in BENCHMARKS:
            monkeypatch.setitem(BENCHMARKS, name, lambda bench: bench.add("nothing", 1.0, "s"))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        measured = [result.benchmark for result in run_benchmarks().results]
        left_out = {"scale"} if there else {"scale", "gpu"}  # a quarter of an hour
        assert measured == [name for name in BENCHMARKS if name not in left_out]

    def test_a_gpu_that_is_not_there_is_refused(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(InputError, match="torch sees no GPU"):
            run_benchmarks(["gpu"])

    def test_json(self, small):
        report = json.loads(json.dumps(run_benchmarks(["matmul"], repeats=1).to_dict()))
        assert {"cpu", "cores", "threads", "torch", "date", "platform"} <= set(report["machine"])
        assert report["machine"]["threads"] == torch.get_num_threads()
        (result,) = report["results"]
        assert set(result) == {"benchmark", "case", "value", "unit", "note"}
        assert (result["benchmark"], result["unit"]) == ("matmul", "GFLOP/s")

    def test_table_is_aligned(self):
        results = [
            Result("train", "addition", 12345.6, "samples/s", "batch 128"),
            Result("calibrate", "auto: lines", 0.00123, "s"),
            Result("decode", "ratio", 2.5, "x"),
        ]
        head, empty, *rows = Report({"cpu": "some cpu", "cores": 2}, results).table().split("\n")
        assert head == "cpu some cpu; cores 2"
        assert empty == ""
        assert rows == [
            "benchmark  case           value  unit       note",
            "train      addition      12,346  samples/s  batch 128",
            "calibrate  auto: lines  0.00123  s",
            "decode     ratio           2.50  x",
        ]

    def test_names_run_once_in_the_order_given(self, small):
        report = run_benchmarks(["decode", "matmul", "decode"], repeats=1)
        order = list(dict.fromkeys(result.benchmark for result in report.results))
        assert order == ["decode", "matmul"]
        assert sum(result.benchmark == "matmul" for result in report.results) == 1

    def test_refuses_an_unknown_name(self):
        with pytest.raises(InputError, match="unknown benchmark 'trian'; did you mean 'train'"):
            run_benchmarks(["matmul", "trian"])

    def test_refuses_no_repeats(self):
        with pytest.raises(InputError, match="repeats must be at least 1, got 0"):
            run_benchmarks(["matmul"], repeats=0)


def test_alternate_warms_up_and_takes_turns():
    calls = []
    times = alternate([lambda: calls.append("a"), lambda: calls.append("b")], 2)
    assert "".join(calls) == "ab" + "abab"
    assert [len(own) for own in times] == [2, 2]


@pytest.mark.slow
def test_scale_measures_sweeps_and_what_they_keep(monkeypatch):
    sizes = {"cells": 2, "steps": 20, "many": 6, "ray": False}
    sizes |= {"base": 5, "samples": 300, "training": 8, "turns": 1}
    monkeypatch.setitem(BENCHMARKS, "scale", partial(BENCHMARKS["scale"], **sizes))
    found = {result.case: result.value for result in run_benchmarks(["scale"]).results}
    assert found["two workers to one"] == pytest.approx(found["one worker"] / found["two workers"])
    # A record each, and of the sweep its plan, two tables, the page and a lock.
    assert found["files of each cell, local"] == pytest.approx((6 + 5) / 6)
    assert found["kept of a smoke cell"] > found["kept of each cell, local"] / 2**10 > 0.1
    assert found["handed out and back, local"] > 0
    for name in ("a proof", "an evaluation", "a vanilla step"):
        one, two = (
            found[f"{name}, {number} process{es}"] for number, es in (("one", ""), ("two", "es"))
        )
        assert found[f"{name}, two to one"] == pytest.approx(one / two)
    each, step = found["a vanilla step, a checkpoint each"], found["a vanilla step, one process"]
    cost = max(0.0, each - step)  # one in 500 steps
    assert found["checkpoints"] == pytest.approx(100 * cost / (500 * step + cost))


def test_a_note_says_what_was_wanted_and_whether_it_is():
    assert wanted([1.4, 1.6, 1.5], least=1.5) == "wanted: at least 1.5, met"
    assert wanted([1.49], least=1.5) == "wanted: at least 1.5, missed"
    assert wanted([2.9], most=3) == "wanted: less than 3, met"
    assert wanted([3.0], most=3) == "wanted: less than 3, missed"
