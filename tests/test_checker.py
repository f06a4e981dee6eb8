"""The second checker of certificates: it agrees with the prover, and neither lets a planted fault pass."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import altered, load_tool, rehash
from lengthwise.bias import CalibratedBias, Line, MatrixTrack, Track
from lengthwise.cli import entry
from lengthwise.locality import Batch, Contexts
from lengthwise.proof import (
    Certificate,
    Counterexample,
    NotApplicableError,
    hashes,
    prove,
    receptive_cone,
    rule_text,
    save_rule,
)
from lengthwise.runs.folder import BIAS, CERTIFICATE, CONFIG, RULE, WEIGHTS
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, make_config

PROGRAM = Path(__file__).parents[1] / "tools" / "check_certificate.py"
second = load_tool("check_certificate")

HEADS = 2
# Tasks, with bases and parameters that keep enumerations small.
RULES = {
    "successor": {"base": 4},
    "addition": {"base": 3},
    "nx1": {"base": 3},
    "parity": {},
    "subtraction": {"base": 3},
    "decrement": {"base": 3},
    "copy": {"base": 4},
    "modular_sum": {"base": 3},
    "multi_addition": {"base": 2, "operands": 3},
    "multiply_by": {"base": 3, "factor": 5},
}


def random_config(rng: np.random.Generator, task: str) -> Config:
    """A small model of a task, laid out and built in one of the ways that both programs know."""

    def one_of(*choices):
        return choices[rng.integers(len(choices))]

    return make_config(
        {
            "task": task,
            **RULES[task],
            "device": "cpu",
            "data": {
                "alignment": one_of("natural", "interleaved"),
                "input_order": one_of("normal", "reversed"),
                "frame": one_of("none", "tokens"),
            },
            "model": {
                "kind": one_of("encoder-decoder", "decoder"),
                "width": 8,
                "heads": HEADS,
                "layers": one_of(1, 2),
                "feed_forward": 12,
                "positions": "none",
                "norm": one_of("pre", "post"),
                "embedding_scale": one_of("none", "sqrt"),
            },
        }
    )


def random_lines(rng: np.random.Generator, config: Config) -> list[Line]:
    """Lines at both sites, in one layer or in all, that move with the column; some cross."""
    layout, lines = config.layout(), []
    for _ in range(rng.integers(1, 7)):
        layer = [None, *range(config.model.layers)][rng.integers(config.model.layers + 1)]
        head, value = int(rng.integers(HEADS)), float(rng.choice([0.0, 0.0, 1.5, -0.5]))
        offset = int(rng.integers(-2, 2))
        segment = layout.task.segments[rng.integers(len(layout.task.segments))]
        if rng.random() < 0.4:
            track = Track.along("answer", offset - 1)
        elif segment.grows or (segment.kind == "digit" and layout.interleaves):
            track = Track.along(segment.name, offset)
        else:
            track = Track(segment.name)
        lines.append(Line(track, head, layer, value))
    return lines


def random_run(path: Path, task: str, seed: int, lines: list[Line] | None = None) -> Run:
    """A run whose every parameter is random, and its lines, if none are given."""
    rng = np.random.default_rng(seed)
    config = random_config(rng, task)
    bias = CalibratedBias(task, HEADS, lines or random_lines(rng, config))
    run = Run.create(path, config, bias)
    torch.manual_seed(seed)
    model = make_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    run.save_model(model)
    return run


def state(run: Run, result: Counterexample) -> None:
    """Write a certificate of what the prover found, although that proves nothing."""
    save_rule(run.path, rule_text(run.task))
    values = {
        "task": run.config.task,
        "base": run.config.base,
        "proven": True,
        "cone": {"reads": [str(track) for track in receptive_cone(run.config, run.bias).reads]},
        "format": "lengthwise-certificate/3",
        "contexts": result.contexts,
        "smallest_margin": result.margin,
        "float_bound": 0.0,
        "hashes": hashes(run),
    }
    (run.path / CERTIFICATE).write_text(json.dumps(values))


@pytest.mark.trains
@pytest.mark.parametrize("task", RULES)
def test_random_models_have_the_contexts_and_margins_that_the_prover_finds(task, tmp_path):
    """Any kind, lines, layout, norm, layers; most contexts are answered wrong, and both count them."""
    compared = []
    for seed in range(7):
        run = random_run(tmp_path / str(seed), task, seed)
        try:
            result = prove(run, budget=20_000)
        except NotApplicableError:
            continue  # too many contexts to be quick
        assert isinstance(result, Counterexample)
        state(run, result)
        found = second.check_certificate(*second.open_run(run.path))
        assert (found["contexts"], found["failing"]) == (result.contexts, result.failing)
        assert found["smallest_margin"] == pytest.approx(result.margin, rel=1e-4, abs=1e-4)
        assert "cone" not in found["says"]
        file = run.path / "counterexample.json"
        file.write_text(json.dumps(result.to_dict()))
        decoded = second.check_counterexample(file, *second.open_run(run.path)[1:])
        assert decoded["good"] == result.wrong
        assert result.given.startswith(decoded["given"])
        compared.append(run.config.model.kind)
    assert len(compared) >= 4
    assert {*compared} == {"encoder-decoder", "decoder"}


@pytest.fixture
def call(capsys) -> Callable[..., tuple[int, str, str]]:
    """Run the second program on some arguments: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = second.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(params=["tiny_abc", "binary"])
def proven(request, tmp_path) -> Run:
    """A copy of a proven run, with its certificate."""
    given = request.getfixturevalue(request.param)
    run = Run.open(shutil.copytree(given.path, tmp_path / "run"))
    prove(run).save(run.path / CERTIFICATE)
    return run


def test_the_two_agree_on_proven_models(proven, call):
    certificate = Certificate.load(proven.path / CERTIFICATE)
    code, out, err = call(proven.path)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert out.startswith(f"Agrees: {certificate.contexts} contexts, smallest margin ")
    code, out, _ = call(proven.path, "--json")
    found = json.loads(out)
    assert (code, found["good"], found["failing"]) == (0, True, 0)
    assert found["smallest_margin"] == pytest.approx(certificate.smallest_margin, abs=1e-3)


def test_the_program_runs_without_lengthwise_and_torch(tiny_abc, tmp_path):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    prove(Run.open(folder)).save(folder / "calibrated" / CERTIFICATE)
    alone = (
        "import runpy, sys\n"
        "sys.modules.update(lengthwise=None, torch=None)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", alone, str(PROGRAM), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Agrees: 232 contexts")
    assert len(PROGRAM.read_text().splitlines()) <= 400


# --- planted faults ---


def change_weight(run: Run) -> None:
    weights = load_file(run.path / WEIGHTS)
    weights["to_logits.bias"][1] += 0.5
    save_file(weights, run.path / WEIGHTS)


def move_line(run: Run) -> None:
    first, *rest = [line for line in run.bias.lines if line.track.segment == "a"]
    others = [line for line in run.bias.lines if line not in (first, *rest)]
    moved = Line(first.track.moved(1), first.head, first.layer, first.value)
    CalibratedBias(run.bias.task, run.bias.heads, [moved, *rest, *others]).save(run.path / BIAS)


def remove_line(run: Run) -> None:
    lines = [line for line in run.bias.lines if line.track.segment == "a"]
    rest = [line for line in run.bias.lines if line.track != lines[0].track]
    CalibratedBias(run.bias.task, run.bias.heads, rest).save(run.path / BIAS)


def change_rule(run: Run) -> None:
    """The last row of the table writes another digit."""
    text = (run.path / RULE).read_text()
    rule = json.loads(text)
    *row, written, after = rule["table"][-1]
    other = json.dumps([*row, (written + 1) % rule["base"], after])
    (run.path / RULE).write_text(text.replace(json.dumps(rule["table"][-1]), other))


FAULTS = {change_weight: WEIGHTS, move_line: BIAS, remove_line: BIAS, change_rule: RULE}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_refused_by_both(proven, call, capsys, fault):
    fault(proven)
    code, out, _ = call(proven.path)
    assert (code, out) == (1, f"Differs: {FAULTS[fault]} is not the certificate's\n")
    assert entry.run(["verify", str(proven.path / CERTIFICATE), str(proven.path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_with_hashes_to_match_is_refused_by_both(proven, call, capsys, fault):
    fault(proven)
    rehash(proven)
    code, out, _ = call(proven.path)
    assert (code, out[:9]) == (1, "Differs: ")
    assert "the certificate's" not in out
    assert entry.run(["verify", str(proven.path / CERTIFICATE), str(proven.path)]) in (1, 2)
    captured = capsys.readouterr()
    assert not captured.out.startswith("Proven")


def change_weight_of_the_first_layer(run: Run) -> None:
    weights = load_file(run.path / WEIGHTS)
    weights["layers.0.contract.weight"] *= 1.1
    save_file(weights, run.path / WEIGHTS)


@pytest.mark.trains
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (change_weight_of_the_first_layer, "the smallest margin is"),
        (move_line, "a row depends on other places than its cone"),
        (remove_line, "a row depends on other places than its cone"),
    ],
)
def test_a_fault_in_a_decoder_is_noticed(tmp_path, call, fault, reason):
    """Of what the prover finds nothing else differs than that a random model is wrong."""
    config = random_config(np.random.default_rng(4), "addition")
    assert (config.model.kind, config.model.layers) == ("decoder", 2)
    lines = map(Line, ("a[c]", "b[c]", "a[c-1]", "answer[c-2]", "+"), (0, 0, 1, 1, 1))
    run = random_run(tmp_path / "run", "addition", 4, list(lines))
    result = prove(run)
    assert isinstance(result, Counterexample)
    state(run, result)
    wrong = f"Differs: {result.failing:,} contexts are answered wrong; a margin of "
    assert call(run.path)[1].startswith(wrong)
    fault(run)
    assert call(run.path)[1].endswith(" is not the certificate's\n")
    rehash(run)
    assert reason in call(run.path)[1]


def test_a_rule_that_the_model_does_not_follow_has_failing_contexts(proven, call):
    change_rule(proven)
    rehash(proven)
    assert "contexts are answered wrong" in call(proven.path)[1]


def test_a_context_that_the_prover_leaves_out_is_missed(tiny_abc, tmp_path, call, monkeypatch):
    run = Run.open(shutil.copytree(tiny_abc.path, tmp_path / "run"))

    def all_but_one(self, real=Contexts.__iter__):
        *most, last = real(self)
        yield from (*most, Batch(last.operands[1:], last.row))

    monkeypatch.setattr(Contexts, "__iter__", all_but_one)
    result = prove(run)
    assert isinstance(result, Certificate)
    result.save(run.path / CERTIFICATE)
    code, out, _ = call(run.path)
    assert (code, out) == (1, f"Differs: there are 232 contexts, not {result.contexts}\n")
    assert result.contexts == 231


def test_a_claim_of_another_margin_or_within_rounding_is_refused(proven, call):
    path = proven.path / CERTIFICATE
    certificate = Certificate.load(path)
    margin = certificate.smallest_margin
    dataclasses.replace(certificate, smallest_margin=margin + 0.1).save(path)
    assert "the smallest margin is" in call(proven.path)[1]
    dataclasses.replace(certificate, float_bound=margin).save(path)
    assert "is what rounding may move" in call(proven.path)[1]
    cone = dataclasses.replace(certificate.cone, reads=certificate.cone.reads[1:])
    dataclasses.replace(certificate, cone=cone).save(path)
    assert "a row depends on other places than its cone" in call(proven.path)[1]


def test_weights_that_are_no_numbers_are_refused(proven, call):
    weights = load_file(proven.path / WEIGHTS)
    weights["to_logits.bias"][0] = torch.nan
    save_file(weights, proven.path / WEIGHTS)
    rehash(proven)
    code, out, _ = call(proven.path, "--json")
    assert (code, json.loads(out)["smallest_margin"]) == (1, None)


# --- counterexamples ---


def test_a_counterexample_is_confirmed_or_not(proven, call, capsys, tmp_path):
    sound = (proven.path / WEIGHTS).read_bytes()
    broken = altered(proven, noise=0.5)
    broken.save_model(broken.model)
    assert entry.run(["prove", str(proven.path), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    file = tmp_path / "counterexample.json"
    file.write_text(json.dumps(said))
    code, out, _ = call(proven.path, "--counterexample", file)
    should = f"{said['problem']} should give {said['expected']}, gives "
    assert code == 0
    assert out.startswith(f"Confirmed: {should}")
    # Another answer is no truth, and the sound model answers it right.
    file.write_text(json.dumps({**said, "expected": said["given"]}))
    assert call(proven.path, "--counterexample", file)[0] == 1
    file.write_text(json.dumps(said))
    (proven.path / WEIGHTS).write_bytes(sound)
    code, out, _ = call(proven.path, "--counterexample", file)
    assert (code, out) == (1, f"Not confirmed: {should}{said['expected']}\n")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"proven": True}, "no counterexample of successor in base 10"),
        ({"base": 9}, "no counterexample of successor in base 10"),
        ({"problem": "12+3"}, "'12+3' is no problem of successor in base 10"),
        ({"problem": None}, "is broken: "),
    ],
)
def test_what_is_no_counterexample_is_refused(tiny_abc, tmp_path, call, change, reason):
    run = Run.open(shutil.copytree(tiny_abc.path, tmp_path / "run"))
    save_rule(run.path, rule_text(run.task))
    file = tmp_path / "counterexample.json"
    said = {"proven": False, "task": "successor", "base": 10, "problem": "12", "expected": "31$"}
    file.write_text(json.dumps({**said, **change}))
    code, out, err = call(run.path, "--counterexample", file)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err


def test_a_problem_that_ends_improperly_is_refused(tmp_path, call):
    run = random_run(tmp_path / "run", "subtraction", 0)
    save_rule(run.path, rule_text(run.task))
    file = tmp_path / "counterexample.json"
    said = {"proven": False, "task": "subtraction", "base": 3, "problem": "0-1", "expected": "2$"}
    file.write_text(json.dumps(said))
    code, _, err = call(run.path, "--counterexample", file)
    assert code == 2
    assert "no problem of subtraction ends like this one" in err


# --- what it does not speak about ---


def set_model(run: Run, **values: object) -> None:
    config = json.loads((run.path / CONFIG).read_text())
    config["model"] |= values
    (run.path / CONFIG).write_text(json.dumps(config))


def give_line(run: Run, track: MatrixTrack | str) -> None:
    CalibratedBias(run.bias.format, run.bias.heads, [Line(track)]).save(run.path / BIAS)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda run: set_model(run, positions="sinusoidal"), "model.positions is 'sinusoidal'"),
        (lambda run: set_model(run, encoder_layers=1), "model.encoder_layers is 1"),
        (lambda run: set_model(run, kind="encoder"), "model.kind is 'encoder'"),
        (lambda run: (run.path / BIAS).unlink(), "has no calibrated bias (bias.jsonl)"),
        (lambda run: (run.path / RULE).unlink(), "has no rule of a proof (rule.json)"),
        (lambda run: give_line(run, MatrixTrack("cross", "diagonal")), "reads a line of a matrix"),
        (lambda run: give_line(run, "a"), "reads a, which does not move with the column written"),
        (lambda run: give_line(run, "b[c]"), "reads b[c], which does not move with the column"),
        (lambda run: (run.path / CERTIFICATE).unlink(), "No such file"),
        (lambda run: (run.path / CERTIFICATE).write_text("{"), " is broken: "),
        (lambda run: (run.path / CERTIFICATE).write_text("[" * 10**5), " is broken: "),
        (lambda run: (run.path / WEIGHTS).write_text("no weights"), " is broken: "),
        (lambda run: (run.path / RULE).write_text('{"format": 1}'), "is no lengthwise-rule/1"),
    ],
)
def test_what_it_does_not_know_it_refuses_by_name(tiny_abc, tmp_path, call, spoil, reason):
    run = Run.open(shutil.copytree(tiny_abc.path, tmp_path / "run"))
    prove(run).save(run.path / CERTIFICATE)
    spoil(run)
    code, out, err = call(run.path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err
