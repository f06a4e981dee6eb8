"""Proof: complete, confirmed by exhaustive decoding, and never fooled by planted faults."""

from __future__ import annotations

import dataclasses
import json
import shutil
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    LOCAL,
    SMALL,
    all_right,
    altered,
    assert_confirmed,
    assert_none_is_missed,
    context_of,
    make_cone,
    random_problems,
)
from lengthwise.api import train
from lengthwise.bias import CalibratedBias, Line, MatrixTrack
from lengthwise.cli import entry
from lengthwise.locality import Batch, Contexts
from lengthwise.model import plan_attention
from lengthwise.pipeline import run_abc
from lengthwise.pipeline.until_proven import NotProvenError, train_until_proven
from lengthwise.problems.layout import Layout, digits_of
from lengthwise.problems.sampling import in_split
from lengthwise.proof import (
    Certificate,
    Counterexample,
    NotApplicableError,
    estimate,
    hashes,
    prove,
    receptive_cone,
    verify,
)
from lengthwise.proof.checker import Checker
from lengthwise.runs.folder import PROGRESS
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError, make_config
from lengthwise.tasks import TASKS
from lengthwise.training.batches import Batches
from lengthwise.training.drill import drill_problems


@pytest.mark.trains
@pytest.mark.parametrize("name", LOCAL)
@given(data=st.data())
def test_every_context_of_every_problem_is_among_those_checked(name, data):
    """The heart of the proof: rows of random problems of any width show no context that was missed."""
    assert_none_is_missed(TASKS[name](SMALL.get(name, 3)), 1, data)


def test_a_task_that_is_not_local_is_not_provable():
    config = make_config({"task": "parity_classification", "model": {"positions": "none"}})
    bias = CalibratedBias("parity_classification", 4, [Line("a[c]")])
    with pytest.raises(NotApplicableError, match="depends on all of the problem, however long"):
        receptive_cone(config, bias)


def seen_of_a_multiple(factor: int, numbers: np.ndarray, row: int, width: int) -> set[tuple]:
    """What a row sees of multiples in base 2, by arithmetic: ends, carry, the column before and its own."""
    before = max(row - 1, 0)
    carry = (numbers % 2**before) * factor >> before
    bits = [numbers >> column & 1 if 0 <= column < width else -1 for column in (row - 1, row)]
    growth = (factor - 1).bit_length()
    ends = min(row, 1), min(width - row, growth + 1)
    columns = np.broadcast_arrays(carry, *bits)
    return {(*ends, *values) for values in np.unique(np.stack(columns, axis=1), axis=0).tolist()}


@pytest.mark.trains
@pytest.mark.parametrize("factor", [255, 256, 257, 999])
def test_carries_of_a_large_factor_are_counted(factor):
    """More states than a byte holds; all multiples of up to 13 bits show every context."""
    task = TASKS["multiply_by"](2, factor)
    contexts = Contexts(task, make_cone([0], [("a", -1), ("a", 0)]))
    checked, count = set(), 0
    for batch in contexts:
        count += len(batch.operands)
        numbers = batch.operands[:, 0].astype(np.int64) @ 2 ** np.arange(batch.width)
        checked |= seen_of_a_multiple(factor, numbers, batch.row, batch.width)
    oracle = set()
    for bits in range(1, 14):
        width = bits + task.growth
        for row in range(width + 1):
            oracle |= seen_of_a_multiple(factor, np.arange(2**bits), row, width)
    assert checked == oracle
    assert count == len(oracle)


def test_certificates_are_of_one_factor(binary):
    found = set()
    for factor in (7, 8):
        config = make_config({"task": "multiply_by", "factor": factor})
        run = Run(binary.path, config, binary.bias)
        found.add(hashes(run)["model"])
    assert len(found) == 2


@pytest.mark.parametrize("name", LOCAL)
def test_the_problems_that_show_contexts_are_problems_of_the_task(name):
    task = TASKS[name](SMALL.get(name, 3))
    grows = [segment.name for segment in task.operands if segment.grows]
    reads = tuple((name, offset) for name in grows for offset in (-1, 0))
    for batch in chain(*(Contexts(task, make_cone(rows, reads)) for rows in ((0,), (-1, 0)))):
        assert 0 <= batch.row <= batch.width
        growing = [i for i, s in enumerate(task.operands) if s.grows]
        assert not batch.operands[:, growing, batch.width - task.growth :].any()
        for operands in batch.operands:
            np.testing.assert_array_equal(task.admit(operands[None].copy())[0], operands)


def test_the_cone_of_the_calibrated_successor(tiny_abc):
    run = tiny_abc.calibrated
    cone = receptive_cone(run.config, run.bias)
    assert set(map(str, cone.reads)) == {"a[c]", "a[c-1]", "answer[c-1]"}
    assert cone.columns == {-1: {"a", "answer"}, 0: {"a"}}


def test_self_attention_widens_the_cone_layer_by_layer():
    lines = [
        Line("a[c]", layer=0),
        Line("b[c+1]", layer=1),
        Line("answer[c-2]", layer=0),
        Line("answer[c-3]", layer=1),
        Line("answer[c+2]", layer=1),  # the future is closed
    ]
    config = make_config({"task": "addition", "model": {"positions": "none"}})
    cone = receptive_cone(config, CalibratedBias("addition", 4, lines))
    # The last layer reads b+1 itself; the row and the one two before read a in the first layer.
    answer = ["answer[c-4]", "answer[c-3]", "answer[c-2]", "answer[c-1]"]
    assert list(map(str, cone.reads)) == ["a[c-2]", "a[c]", *answer, "b[c+1]"]


def test_the_tiny_models_are_proven(tiny_abc, binary):
    for run, contexts in ((tiny_abc.calibrated, 232), (binary, None)):
        result = prove(run)
        assert isinstance(result, Certificate), result
        assert contexts is None or result.contexts == contexts
        assert result.smallest_margin > 1.0 > 2 * result.float_bound > 0
        assert "every length" in result.claim


def test_a_row_of_a_long_problem_is_its_context(tiny_abc):
    """Translation invariance: the logits of a row in 80 digits are those of its context in three."""
    run = tiny_abc.calibrated
    cone = receptive_cone(run.config, run.bias)
    known = {}
    for batch in Contexts(run.task, cone):
        layout = Layout(run.task, batch.width)
        source, target = layout.batch(batch.operands)
        plan = plan_attention(run.bias, layout, len(run.model.layers))
        with torch.inference_mode():
            logits = run.model(source, target[:, :-1], plan).logits[:, batch.row]
        for operands, row in zip(batch.operands, logits, strict=True):
            known[context_of(run.task, cone, operands, batch.row)] = row
    layout = Layout(run.task, 81)
    problems = random_problems(run.task, np.random.default_rng(1), 3, 81)
    problems[1, 0, :80] = 9
    source, target = layout.batch(problems)
    plan = plan_attention(run.bias, layout, len(run.model.layers))
    with torch.inference_mode():
        logits = run.model(source, target[:, :-1], plan).logits
    for problem, rows in zip(problems, logits, strict=True):
        for row in range(82):
            wanted = known[context_of(run.task, cone, problem, row)]
            torch.testing.assert_close(rows[row], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
def test_the_verdict_is_that_of_exhaustive_decoding(binary, noise, seed):
    """All additions in base 2 of up to 6 bits, for models from sound to broken."""
    run = altered(binary, noise=noise, seed=seed)
    result = prove(run)
    assert result.proven == all_right(run, range(2, 8))
    if isinstance(result, Counterexample):
        assert result.wrong
        assert_confirmed(run, result)


def test_sound_and_broken_models_both_occur_above(binary):
    proven = {prove(altered(binary, noise=noise, seed=0)).proven for noise in (0.0, 0.3)}
    assert proven == {True, False}


def test_exhaustive_successors_of_a_proven_model(tiny_abc):
    assert all_right(tiny_abc.calibrated, range(2, 7))


def test_one_rare_context_is_found(binary):
    """The smallest fault: the end token's bias raised until a single context in thousands breaks."""
    low, high = 0.0, 100.0
    for _ in range(40):
        middle = (low + high) / 2
        run = altered(binary)
        with torch.no_grad():
            run.model.to_logits.bias[1] += middle
        low, high = (middle, high) if prove(run).proven else (low, middle)
    with torch.no_grad():
        run = altered(binary)
        run.model.to_logits.bias[1] += high + 1e-2
    result = prove(run)
    assert isinstance(result, Counterexample)
    assert 1 <= result.failing <= result.contexts // 10
    assert_confirmed(run, result)


def without(bias: CalibratedBias, dropped: Line) -> CalibratedBias:
    return CalibratedBias(bias.task, bias.heads, [line for line in bias.lines if line != dropped])


def test_every_line_shifted_or_removed_is_refuted(binary):
    crossing = [line for line in binary.bias.lines if line.site == "cross"]
    for line in crossing:
        rest = without(binary.bias, line)
        for steps in (-1, 1):
            moved = Line(line.track.moved(steps), line.head)
            run = altered(binary, bias=CalibratedBias("addition", 4, [*rest.lines, moved]))
            result = prove(run)
            assert isinstance(result, Counterexample)
            assert_confirmed(run, result)
        run = altered(binary, bias=rest)
        result = prove(run)
        assert isinstance(result, Counterexample)
        assert_confirmed(run, result)


@pytest.mark.parametrize("state", [0, 1])
@pytest.mark.parametrize("column", [(0,), (5,), (9,)])
def test_a_task_with_one_transition_altered_is_refuted(tiny_abc, state, column, monkeypatch):
    class Faulty(TASKS["successor"]):
        def step(self, before, *digits):
            after, written = super().step(before, *digits)
            if (before, digits) == (state, column):
                written = (written + 1) % self.base
            return after, written

    run = altered(tiny_abc.calibrated)
    monkeypatch.setattr("lengthwise.problems.format.make_task", lambda *_, **__: Faulty())
    if (state, column) == (0, (0,)):  # zeros on the left would write ones without end
        with pytest.raises(NotApplicableError, match="can have more digits than its growth"):
            prove(run)
        return
    result = prove(run)
    assert isinstance(result, Counterexample)
    assert_confirmed(run, result)


def test_weights_that_are_no_numbers_are_refuted(binary):
    run = altered(binary)
    with torch.no_grad():
        run.model.to_logits.bias[0] = torch.nan
    assert not prove(run).proven


def test_a_margin_within_rounding_is_not_certified(binary, monkeypatch):
    monkeypatch.setattr("lengthwise.proof.prover._SAFETY", 1e9)
    result = prove(binary)
    assert isinstance(result, Counterexample)
    assert not result.wrong
    assert "no more than rounding may move" in str(result)
    assert result.failing == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            Line(MatrixTrack("cross", "vertical", 0, "a")),
            "head 0 reads .* which does not move with the column",
        ),
        (
            Line(MatrixTrack("cross", "diagonal", 0, "a")),
            "does not move with the column being written",
        ),
        (
            Line(MatrixTrack("cross", "anti-diagonal", 3)),
            "does not move with the column being written",
        ),
        (Line(MatrixTrack("cross", "everywhere", 0, "a")), "head 0 reads every key of a"),
        (
            Line(MatrixTrack("self", "vertical", 0, "answer")),
            "does not move with the column being written",
        ),
        (Line(MatrixTrack("self", "everywhere")), "head 0 reads every key"),
    ],
)
def test_lines_that_do_not_move_are_not_applicable(tiny_abc, line, reason):
    run = altered(tiny_abc.calibrated, bias=CalibratedBias("successor", 4, [line]))
    with pytest.raises(NotApplicableError, match=reason):
        prove(run)


def test_vanilla_models_and_positions_are_not_applicable(tiny_abc):
    with pytest.raises(
        NotApplicableError, match="position scheme 'sinusoidal' tells every row where"
    ):
        prove(tiny_abc.vanilla)
    config = tiny_abc.calibrated.config
    with pytest.raises(NotApplicableError, match="the Causal bias lets a row read ever more keys"):
        receptive_cone(config, tiny_abc.vanilla.bias)


def test_the_budget_names_the_line_that_reaches_farthest(binary):
    lines = [*binary.bias.lines, Line("answer[c-4]", 2)]
    run = altered(binary, bias=CalibratedBias("addition", 4, lines))
    text = (
        r"more than the budget of 100\. The line that makes them so many: answer\[c-4\], the "
        r"symbol written 4 steps ago \(self-attention\)\. Without it there would be \d+, and the other "
        r"lines would still tell every symbol; with --budget \d+ it takes "
    )
    with pytest.raises(NotApplicableError, match=text):
        prove(run, budget=100)


def test_certificates_round_trip_and_verify(tiny_abc, binary, tmp_path):
    certificate = prove(tiny_abc.calibrated)
    certificate.save(tmp_path / "certificate.json")
    loaded = Certificate.load(tmp_path / "certificate.json")
    assert loaded == certificate
    again = verify(loaded, Run.open(tiny_abc.path))
    assert dataclasses.replace(again, seconds=0.0) == dataclasses.replace(certificate, seconds=0.0)
    with pytest.raises(InputError, match="the certificate is of other weights than"):
        verify(loaded, binary)


def test_another_file_is_no_certificate(tmp_path):
    (tmp_path / "results.json").write_text('[{"n": 1}]')
    with pytest.raises(InputError, match="is not a certificate: it has no format"):
        Certificate.load(tmp_path / "results.json")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other", "proven": true}'])
def test_broken_certificates_are_refused(tmp_path, content):
    (tmp_path / "certificate.json").write_text(content)
    with pytest.raises(InputError, match="is not a certificate"):
        Certificate.load(tmp_path / "certificate.json")
    with pytest.raises(InputError, match="can't read certificate"):
        Certificate.load(tmp_path / "nowhere.json")


def test_commands(tiny_abc, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    assert entry.run(["prove", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("Proven: greedy decoding answers every successor")
    certificate = folder / "calibrated" / "certificate.json"
    assert entry.run(["verify", str(certificate), str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["proven"] is True
    assert entry.run(["prove", str(folder / "vanilla")]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert entry.run(["prove", str(folder), "--budget", "3"]) == 2
    assert "232 local contexts, more than the budget of 3" in capsys.readouterr().err
    # The same weights without a line: refuted, exit code 1, and the certificate does not verify.
    run = Run.open(folder)
    bias = without(run.bias, next(ln for ln in run.bias.lines if ln.track.offset == -1))
    Run.create(tmp_path / "other", run.config, bias).save_model(run.model)
    assert entry.run(["prove", str(tmp_path / "other")]) == 1
    assert capsys.readouterr().out.startswith("Refuted: ")
    assert entry.run(["verify", str(certificate), str(tmp_path / "other")]) == 2
    assert "the certificate is of other weights than" in capsys.readouterr().err


def test_counterexamples_offer_problems_to_train_on(binary):
    result = prove(altered(binary, noise=0.3))
    assert isinstance(result, Counterexample)
    assert 1 <= len(result.drill) <= 64
    for problem in result.drill:
        parts = binary.task.parse(problem)
        assert max(map(len, parts)) <= binary.config.data.length
        digits = digits_of(binary.task, parts, binary.config.width)
        assert in_split(binary.task, digits, "train").all()


class Stop:
    """Interrupts a proof after some batches, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, contexts: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def counted(monkeypatch) -> list[Batch]:
    """The batches that are checked from now on."""
    seen, real = [], Checker.check
    monkeypatch.setattr(
        Checker, "check", lambda self, batch: (seen.append(batch), real(self, batch))
    )
    return seen


def same(one, other) -> bool:
    return dataclasses.replace(one, seconds=0.0) == dataclasses.replace(other, seconds=0.0)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_an_interrupted_proof_goes_on_where_it_was(tiny_abc, tmp_path, monkeypatch, noise):
    run, file = altered(tiny_abc.calibrated, noise=noise), tmp_path / "progress.json"
    seen = counted(monkeypatch)
    whole = prove(run)
    assert whole.proven == (noise == 0.0)
    batches = len(seen)
    for after in (1, batches // 2, batches - 1):
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            prove(run, progress=file, on_progress=Stop(after))
        assert len(seen) == after
        assert same(prove(run, progress=file), whole)
        assert len(seen) == batches
        assert not file.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"weights": "', '"weights": "0'),
        lambda text: text.replace('"tightest": [[', '"tightest": [3, ['),
        lambda text: text.replace("lengthwise-proof/1", "lengthwise-proof/0"),
    ],
)
def test_progress_of_something_else_is_not_used(tiny_abc, tmp_path, monkeypatch, spoil):
    run, file = tiny_abc.calibrated, tmp_path / "progress.json"
    whole = prove(run)
    with pytest.raises(KeyboardInterrupt):
        prove(run, progress=file, on_progress=Stop(2))
    spoiled = spoil(file.read_text())
    assert spoiled != file.read_text()
    file.write_text(spoiled)
    seen = counted(monkeypatch)
    assert same(prove(run, progress=file), whole)
    assert len(seen) > 2
    assert sum(len(batch.operands) for batch in seen) == 232


def test_long_proofs_save_on_the_way(tiny_abc, tmp_path, monkeypatch):
    """A process that is killed can't say good-bye."""
    monkeypatch.setattr("lengthwise.proof.prover._SAVE_EVERY", 0.0)
    file, found = tmp_path / "progress.json", []

    def look(contexts: int, total: int) -> None:
        found.append(json.loads(file.read_text())["found"]["contexts"] == contexts)

    prove(tiny_abc.calibrated, progress=file, on_progress=look)
    assert len(found) > 2
    assert all(found)


def test_verify_never_uses_progress(tiny_abc, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_abc.calibrated.path, tmp_path / "run")
    certificate = prove(Run.open(folder))
    with pytest.raises(KeyboardInterrupt):
        prove(Run.open(folder), progress=folder / PROGRESS, on_progress=Stop(2))
    seen = counted(monkeypatch)
    assert verify(certificate, Run.open(folder)).proven
    assert sum(len(batch.operands) for batch in seen) == 232


def test_an_interrupted_command_goes_on(tiny_abc, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(tiny_abc.calibrated.path, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("lengthwise.progress.display.Display.checked", Stop(3))
        assert entry.run(["prove", str(folder)]) == 2
    err = capsys.readouterr().err
    assert "There are at most 232 local contexts" in err
    assert "interrupted; the same command goes on from there" in err
    assert (folder / PROGRESS).exists()
    assert entry.run(["prove", str(folder)]) == 0
    assert "Going on with an interrupted proof" in capsys.readouterr().err
    assert not (folder / PROGRESS).exists()


def test_large_batches_come_in_parts(monkeypatch):
    """The same contexts, whatever the size of a batch; a resumed proof counts on their order."""
    contexts = Contexts(TASKS["addition"](4), make_cone([-1, 0], [("a", -1), ("a", 0), ("b", 0)]))
    whole = [batch.operands for batch in contexts]
    monkeypatch.setattr("lengthwise.locality.contexts._BATCH", 64)
    parts = [batch.operands for batch in contexts]
    assert max(map(len, parts)) <= 64 < max(map(len, whole))
    assert sorted(bytes(p) + bytes([p.shape[1]]) for ps in whole for p in ps) == sorted(
        bytes(p) + bytes([p.shape[1]]) for ps in parts for p in ps
    )


def test_the_estimate_counts_and_takes_time(binary):
    expected = estimate(binary)
    assert expected.contexts == Contexts(binary.task, prove(binary).cone).bound()
    assert expected.seconds > 0
    assert f"at most {expected.contexts:,} local contexts" in str(expected)


def test_abc_trains_until_proven(tiny_abc, tiny_config, tmp_path, monkeypatch):
    """Refuted once, here by decree; then trained on what failed, and proven."""
    refuted = Counterexample(
        *("successor", 10, "1999", 0, "0002$", "0001$", -1.0, 232, 1, 1e-4, ("1999", "0999"), 0.1)
    )
    verdicts = [refuted]

    def prove_later(run, **arguments):
        return verdicts.pop() if verdicts else prove(run, **arguments)

    monkeypatch.setattr("lengthwise.pipeline.until_proven.prove_run", prove_later)
    shutil.copytree(tiny_abc.path, tmp_path / "run")
    outcome = run_abc(tiny_config, tmp_path / "run", prove=True, resume=True)
    assert isinstance(outcome.proof, Certificate)
    assert outcome.calibrated.config.data.drill == ("1999", "0999")
    assert (outcome.calibrated.path / "certificate.json").exists()
    assert outcome.seconds["retrain"] > 0.5


def test_abc_fails_honestly_when_drilling_does_not_help(tiny_abc, tiny_values, tmp_path):
    """A retraining whose criterion asks for nothing stops far too early, drill or no drill."""
    tiny_values["retraining"] |= {
        "exact_match": 0.0,
        "loss": 100.0,
        "worst_loss": 100.0,
        "cooldown_steps": 0,
    }
    tiny_values["training"] |= {"evaluate_every": 10}
    tiny_values["evaluation"] = {"lengths": [30], "samples": 50}
    weak = make_config(tiny_values)
    shutil.copytree(tiny_abc.path / "vanilla", tmp_path / "run" / "vanilla")
    (tmp_path / "run" / "vanilla" / "config.json").write_text(weak.model_dump_json())
    outcome = run_abc(weak, tmp_path / "run", prove=True, resume=True)
    assert isinstance(outcome.proof, Counterexample)
    drilled = outcome.calibrated.config.data.drill
    assert drilled
    assert not (outcome.calibrated.path / "certificate.json").exists()
    # The same folder goes on where it was, drill and all.
    again = run_abc(weak, tmp_path / "run", prove=False, resume=True)
    assert again.calibrated.config.data.drill == drilled


def test_abc_goes_on_where_the_proof_does_not_apply(
    tiny_abc, tiny_file, tmp_path, monkeypatch, capsys
):
    def too_many(run, **arguments):
        raise NotApplicableError("there are 9 local contexts, more than the budget of 3")

    monkeypatch.setattr("lengthwise.pipeline.until_proven.prove_run", too_many)
    shutil.copytree(tiny_abc.path, tmp_path / "run")
    arguments = ["abc", str(tiny_file), "--out", str(tmp_path / "run"), "--resume", "--prove"]
    assert entry.run([*arguments, "--lengths", "30"]) == 2
    out = capsys.readouterr().out
    assert "Neither proven nor refuted: there are 9 local contexts" in out
    assert "Exact match by length" in out
    assert entry.run([*arguments, "--lengths", "30", "--json"]) == 2
    proof = json.loads(capsys.readouterr().out)["proof"]
    assert proof["proven"] is False
    assert proof["reason"].startswith("there are 9 local contexts")


def test_drilled_problems_take_part_in_training_and_validation(tiny_values):
    tiny_values["data"] |= {"drill": ["1999", "0999"]}
    config = make_config(tiny_values)
    layout = Layout(config.make_task(), config.width)
    drill = drill_problems(config, layout)
    assert drill[:, 0].tolist() == [[9, 9, 9, 1, 0], [9, 9, 9, 0, 0]]
    batches = Batches(config)
    wanted = {tuple(row) for row in layout.source(drill).tolist()}
    share = config.training.batch_size // 8
    for step in (0, 1, 2, 40):
        source = batches.train(step).source
        assert len(source) == config.training.batch_size
        drilled = [tuple(row) in wanted for row in source.tolist()]
        assert all(drilled[:share])
        assert not all(drilled)
    source = batches.validation(10).source
    assert len(source) == 12
    assert {tuple(row) for row in source[10:].tolist()} == wanted


def test_padded_trainings_drill_problems_at_their_own_width_too(tiny_values):
    """Their answers reach the end there: padded to eleven columns none of four digits does."""
    tiny_values["data"] |= {"drill": ["1999", "99", "0001", "98"], "length": 4, "width": 11}
    config = make_config(tiny_values)
    batches = [Batches(config).train(step) for step in range(160)]
    own = [step for step, batch in enumerate(batches) if batch.layout.width != 11]
    assert own == list(range(7, 160, 8))
    assert {batches[step].layout.width for step in own} == {2, 3, 5}
    reached = {text for step in own for text in expressions(batches[step])}
    assert reached == {"1999", "99", "1", "98"}
    assert all(len(batches[step].source) == config.training.batch_size for step in own)
    for changes in ({"drill": []}, {"width": 5}):
        tiny_values["data"] |= {"drill": ["99"], **changes}
        usual = Batches(make_config(tiny_values))
        assert {usual.train(step).layout.width for step in range(32)} == {usual.layout.width}


def expressions(batch):
    """The numbers of a batch of one operand."""
    rows = batch.source[:, : batch.layout.width].tolist()
    return {"".join(map(str, row)).lstrip("0") for row in rows}


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("12x", "data.drill: unexpected 'x' at"),
        ("12345", "data.drill: 12345 has more than 4 digits"),
    ],
)
def test_drill_that_is_no_problem_is_refused(tiny_values, problem, message):
    tiny_values["data"] |= {"drill": [problem]}
    config = make_config(tiny_values)
    with pytest.raises(InputError, match=message):
        drill_problems(config, Layout(config.make_task(), config.width))


def calibrated_file(tiny_abc) -> str:
    return str(tiny_abc.calibrated.path / "bias.jsonl")


def test_training_until_proven(tiny_abc, tiny_file, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["train", str(tiny_file), "--bias", calibrated_file(tiny_abc), "--out", str(out)]
    assert entry.run([*arguments, "--until", "proven", "--json"]) == 0
    proof = json.loads(capsys.readouterr().out)["proof"]
    assert proof["proven"] is True
    assert Certificate.load(out / "certificate.json").hashes == proof["hashes"]
    # Nothing is left to do but to prove it again.
    assert entry.run([*arguments, "--until", "proven", "--resume"]) == 0
    assert "Proven: " in capsys.readouterr().out


def test_training_until_proven_drills_what_fails(tiny_abc, tiny_config, tmp_path, monkeypatch):
    """Refuted once by decree: the problems that failed are drilled, and an interruption keeps them."""
    refuted = Counterexample(
        *("successor", 10, "1999", 0, "0002$", "0001$", -1.0, 232, 1, 1e-4, ("1999", "0999"), 0.1)
    )
    verdicts = [refuted]

    def prove_later(run, **arguments):
        return verdicts.pop() if verdicts else prove(run, **arguments)

    monkeypatch.setattr("lengthwise.pipeline.until_proven.prove_run", prove_later)
    config, bias = tiny_config.for_retraining(), tiny_abc.bias
    run, proof = train_until_proven(config, tmp_path / "run", bias=bias)
    assert isinstance(proof, Certificate)
    assert run.config.data.drill == ("1999", "0999")
    again, proof = train_until_proven(config, tmp_path / "run", bias=bias, resume=True)
    assert again.config == run.config
    assert proof.proven


def test_training_until_proven_gives_up(tiny_abc, tiny_values, tmp_path, capsys):
    """Trainings that stop far too early: an honest no, with the model and the problem kept."""
    tiny_values["retraining"] |= {"exact_match": 0.0, "loss": 100.0, "worst_loss": 100.0}
    tiny_values["retraining"] |= {"cooldown_steps": 0}
    tiny_values["training"] |= {"evaluate_every": 10}
    tiny_values["calibration"] |= {"attempts": 2}
    weak = make_config(tiny_values)
    with pytest.raises(NotProvenError, match="Refuted: ") as caught:
        train(weak, bias=tiny_abc.bias, until="proven", out=tmp_path / "api")
    assert caught.value.proof.wrong
    assert caught.value.run.config.data.drill
    file = tmp_path / "weak.json"
    file.write_text(weak.model_dump_json())
    arguments = ["train", str(file), "--bias", calibrated_file(tiny_abc)]
    out = tmp_path / "cli"
    assert entry.run([*arguments, "--out", str(out), "--until", "proven"]) == 1
    assert "Refuted: " in capsys.readouterr().out
    assert not (out / "certificate.json").exists()


def test_training_until_proven_refuses_what_no_proof_speaks_about(
    tiny_abc, tiny_file, tmp_path, capsys
):
    out = str(tmp_path / "run")
    assert entry.run(["train", str(tiny_file), "--out", out, "--until", "proven"]) == 2
    assert "position scheme 'sinusoidal'" in capsys.readouterr().err
    arguments = ["train", str(tiny_file), "--out", out, "--bias", calibrated_file(tiny_abc)]
    assert entry.run([*arguments, "--until", "prooven"]) == 2
    assert "did you mean 'proven'?" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contexts": 233}, "the certificate says contexts 233; proven is 232"),
        ({"smallest_margin": 99.0}, "the certificate says a smallest margin of 99.0000; found is"),
    ],
)
def test_a_certificate_that_says_something_else_is_refused(tiny_abc, change, message):
    run = tiny_abc.calibrated
    certificate = prove(run)
    assert isinstance(certificate, Certificate)
    assert verify(certificate, run).proven
    with pytest.raises(InputError, match=message):
        verify(dataclasses.replace(certificate, **change), run)


def test_the_pipeline_refuses_a_task_that_is_not_local(tmp_path):
    config = make_config({"task": "parity_classification"})
    with pytest.raises(InputError, match="not local: its answer depends on all of the problem"):
        run_abc(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
