"""The whole method: stages, second attempts, resuming after a crash at each stage."""

import dataclasses
import functools
import json
import re
import shutil

import pytest
from safetensors.torch import load_file, save_file

from lengthwise.calibration import kept_maps
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.pipeline import attempts, run_abc, stages
from lengthwise.pipeline.stages import Observer
from lengthwise.pipeline.until_proven import train_until_proven
from lengthwise.proof import Certificate, Counterexample, NotApplicable
from lengthwise.runs.folder import WEIGHTS
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError, make_config
from lengthwise.training.trainer import NotInterpolatedError, train_run

pytestmark = pytest.mark.trains


class Recorder(Observer):
    """Writes down what the pipeline tells; raises at a chosen point."""

    def __init__(self, crash=None):
        self.stages, self.attempts, self.crash = [], [], crash

    def begin(self, stage, config):
        self.stages.append(stage)

    def trained(self, stage, metrics):
        if self.crash == (stage, metrics.step):
            raise CrashError

    def calibrated(self, bias, attempt):
        self.attempts.append((attempt, bias))
        if self.crash == "calibrated":
            raise CrashError

    def scored(self, score):
        if self.crash == ("scored", score.length):
            raise CrashError


class CrashError(Exception):
    pass


def test_stages_run_in_order(tiny_abc):
    """The fixture ran them; the outcome has what each made."""
    assert tiny_abc.maps.exact_match >= 0.99
    assert {line.track.segment for line in tiny_abc.bias.lines if line.site == "cross"} == {"a"}
    assert tiny_abc.calibrated.config.model.positions == "none"
    assert [row["phase"] for row in tiny_abc.calibrated.metrics()][-2:] == ["cooldown", "done"]


def test_calibration_finds_the_digit_and_the_one_before(tiny_abc):
    """What the successor needs: the digit itself, and the digit before to know its carry."""
    offsets = {line.track.offset for line in tiny_abc.bias.lines if line.site == "cross"}
    assert offsets == {0, -1}


@pytest.mark.parametrize(
    "crash", [("train", 100), "calibrated", ("retrain", 100), ("scored", 30)], ids=str
)
def test_resume_after_a_crash_reaches_the_same_weights(tiny_abc, tiny_config, tmp_path, crash):
    with pytest.raises(CrashError):
        run_abc(tiny_config, tmp_path / "run", observer=Recorder(crash))
    if crash == ("scored", 30):  # what was measured is not lost
        measured = [(s.method, s.length) for s in LengthCurve.load(tmp_path / "run")]
        assert measured == [("vanilla", 4)] * 2 + [("vanilla", 30)]
    recorder = Recorder()
    again = run_abc(tiny_config, tmp_path / "run", resume=True, observer=recorder)
    assert recorder.stages == ["train", "calibrate", "retrain", "prove", "evaluate"]
    for method in ("vanilla", "calibrated"):
        before = load_file(tiny_abc.path / method / WEIGHTS)
        after = load_file(again.path / method / WEIGHTS)
        assert all(before[name].equal(after[name]) for name in before)
    clock = ("seconds",)
    for one, two in zip(tiny_abc.curve, again.curve, strict=True):
        assert {k: v for k, v in vars(one).items() if k not in clock} == {
            k: v for k, v in vars(two).items() if k not in clock
        }


def test_a_failed_retraining_gets_one_more_line(tiny_abc, tiny_config, tmp_path, monkeypatch):
    shutil.copytree(tiny_abc.path / "vanilla", tmp_path / "run" / "vanilla")
    real = stages.train_run
    begun = []

    def fail_once(config, path, **arguments):
        if path.name == "calibrated":
            begun.append(arguments["bias"])
            if len(begun) == 1:
                run = real(config, path, **arguments)
                raise NotInterpolatedError(run, _last(run))
        return real(config, path, **arguments)

    monkeypatch.setattr(stages, "train_run", fail_once)
    monkeypatch.setattr(attempts, "suffices", lambda maps, bias: False)
    # As where there are problems and no rule: whether another vanilla model could show more is not known.
    monkeypatch.setattr(attempts, "has_rule", lambda task: False)
    recorder = Recorder()
    outcome = run_abc(tiny_config, tmp_path / "run", resume=True, observer=recorder)
    assert [attempt for attempt, _ in recorder.attempts] == [0, 1]
    first, second = ({ln.track for ln in bias.lines} for bias in begun)
    assert len(second - first) == 1
    assert outcome.bias == begun[1] == outcome.calibrated.bias


def test_lines_that_tell_every_symbol_get_more_steps(tiny_abc, tiny_values, tmp_path):
    """Not more lines: the training goes on, to the model of one that had the steps from the start."""
    shutil.copytree(tiny_abc.path / "vanilla", tmp_path / "run" / "vanilla")
    tiny_values["retraining"]["max_steps"] = steps = 150
    recorder = Recorder()
    outcome = run_abc(make_config(tiny_values), tmp_path / "run", resume=True, observer=recorder)
    assert recorder.stages.count("retrain") > 1
    assert [attempt for attempt, _ in recorder.attempts] == [0]
    assert outcome.bias == tiny_abc.bias
    done = outcome.calibrated.metrics()[-1]
    assert (done["phase"], steps < done["step"]) == ("done", True)
    assert outcome.calibrated.config.training.max_steps in (2 * steps, 3 * steps)
    before = load_file(tiny_abc.path / "calibrated" / WEIGHTS)
    after = load_file(outcome.path / "calibrated" / WEIGHTS)
    assert all(before[name].equal(after[name]) for name in before)


def _last(run):
    from lengthwise.runs.metrics import Metrics

    return Metrics(**run.metrics()[-1])


def test_a_training_that_never_interpolates_says_so(tiny_values, tmp_path):
    tiny_values["training"] |= {"max_steps": 20, "evaluate_every": 10}
    with pytest.raises(NotInterpolatedError, match=r"vanilla did not interpolate within 20 steps"):
        run_abc(make_config(tiny_values), tmp_path / "run")


def test_the_papers_policy_gets_one_attempt(tiny_abc, tiny_values, tmp_path):
    tiny_values["calibration"] |= {"policy": "paper"}
    tiny_values["retraining"] |= {"max_steps": 50}
    shutil.copytree(tiny_abc.path / "vanilla", tmp_path / "run" / "vanilla")
    config = make_config(tiny_values)
    (tmp_path / "run" / "vanilla" / "config.json").write_text(config.model_dump_json(indent=2))
    recorder = Recorder()
    with pytest.raises(NotInterpolatedError):
        run_abc(config, tmp_path / "run", resume=True, observer=recorder)
    ((attempt, bias),) = recorder.attempts
    assert attempt == 0
    assert {line.track.segment for line in bias.lines} == {"whole"}


def test_resume_keeps_single_runs_and_pipelines_apart(tiny_abc, tiny_config):
    with pytest.raises(InputError, match="was written by `lengthwise train`, which continues it"):
        run_abc(tiny_config, tiny_abc.path / "vanilla", resume=True)
    with pytest.raises(InputError, match="was written by `lengthwise abc`, which continues it"):
        train_run(tiny_config, tiny_abc.path, resume=True)
    # The way on that is named is one that there is.
    with pytest.raises(InputError, match="it was written by `lengthwise abc`, --force starts over"):
        train_run(tiny_config, tiny_abc.path)
    assert not (tiny_abc.path / "config.json").exists()


def test_an_existing_folder_is_refused(tiny_abc, tiny_config):
    with pytest.raises(InputError, match="exists; --resume continues it, --force starts over"):
        run_abc(tiny_config, tiny_abc.path)


def test_another_calibration_continues_and_keeps_what_was(
    tiny_abc, tiny_values, tmp_path, monkeypatch
):
    """The vanilla model is not trained again, and neither model nor measurement of before is lost."""
    path = shutil.copytree(tiny_abc.path, tmp_path / "run")
    tiny_values["calibration"] |= {"lines": "all"}
    tiny_values["evaluation"] |= {"lengths": [5]}
    before = Run.open(path / "calibrated").fingerprint
    one_more = functools.partial(attempts.calibrate, extra=1)
    monkeypatch.setattr(attempts, "calibrate", lambda maps, **settings: one_more(maps))
    outcome = run_abc(make_config(tiny_values), path, resume=True)
    assert (path / "vanilla" / WEIGHTS).read_bytes() == (
        tiny_abc.path / "vanilla" / WEIGHTS
    ).read_bytes()
    assert outcome.vanilla.config.calibration.lines == "all"
    assert outcome.bias != tiny_abc.bias
    assert Run.open(path / "calibrated-1").fingerprint == before
    rows = LengthCurve.load(path)
    assert {s.length for s in rows if s.model == before} == {4, 30, 100}
    assert {s.length for s in rows if s.model == outcome.calibrated.fingerprint} == {5}


def test_a_refused_retraining_leaves_the_model_of_before_in_its_place(
    tiny_abc, tmp_path, monkeypatch
):
    path = shutil.copytree(tiny_abc.path, tmp_path / "run")
    one_more = functools.partial(attempts.calibrate, extra=1)
    monkeypatch.setattr(attempts, "calibrate", lambda maps, **settings: one_more(maps))
    monkeypatch.setattr(attempts, "direct", lambda maps: None)
    config = Run.open(path / "vanilla").config
    model = config.model.model_copy(update={"max_positions": 3})
    changed = config.model_copy(
        update={
            "model": model,
            "retraining": config.retraining.model_copy(update={"positions": "learned"}),
        }
    )
    with pytest.raises(InputError, match="learned positions of this model end earlier"):
        attempts.calibrate_and_retrain(
            changed, path / "calibrated", Run.open(path / "vanilla"), resume=True
        )
    assert not (path / "calibrated-1").exists()
    assert Run.open(path).fingerprint == tiny_abc.calibrated.fingerprint


@pytest.mark.parametrize(
    "setting", ["retraining.loss=0.5", "retraining.positions=rope", "training.loss=0.5"]
)
def test_what_is_refused_has_the_name_under_which_it_was_set(tiny_abc, tmp_path, setting):
    path = shutil.copytree(tiny_abc.path, tmp_path / "run")
    name = setting.partition("=")[0]
    message = rf"begun with {re.escape(name)}=\S+; --resume can't go on with {re.escape(setting)}:"
    with pytest.raises(InputError, match=message):
        run_abc(make_config({"task": "successor"}, [setting]), path, resume=True)


def test_a_resumed_pipeline_keeps_the_settings_that_nobody_changed(tiny_abc, tmp_path):
    path = shutil.copytree(tiny_abc.path, tmp_path / "run")
    config = make_config({"task": "successor"}, ["evaluation.lengths=[6]"])
    outcome = run_abc(config, path, resume=True)
    assert outcome.vanilla.config.data.length == 4
    assert {s.length for s in outcome.curve} == {6}
    assert (path / "calibrated" / WEIGHTS).read_bytes() == (
        tiny_abc.path / "calibrated" / WEIGHTS
    ).read_bytes()


def test_a_pipeline_that_version_0_1_wrote_goes_on(tiny_abc, tiny_values, tmp_path):
    """Its runs do not say what they consist of; with other settings of the evaluation they do then."""
    path = shutil.copytree(tiny_abc.path, tmp_path / "run")
    for part in ("vanilla", "calibrated"):
        values = json.loads((path / part / "config.json").read_text())
        del values["files"]
        (path / part / "config.json").write_text(json.dumps(values))
        save_file(load_file(path / part / WEIGHTS), path / part / WEIGHTS)
    tiny_values["evaluation"] |= {"lengths": [7]}
    tiny_values["retraining"] |= {"max_steps": 2500}
    assert run_abc(make_config(tiny_values), path, resume=True).right
    assert list(json.loads((path / "calibrated" / "config.json").read_text())["files"]) == [
        "bias.jsonl"
    ]
    assert Run.open(path).solve("99") == "100"


def test_a_folder_copied_without_hidden_files_goes_on(tiny_abc, tiny_config, tmp_path):
    hidden = shutil.ignore_patterns(".*")
    path = shutil.copytree(tiny_abc.path, tmp_path / "run", ignore=hidden)
    assert run_abc(tiny_config, path, resume=True).right
    with pytest.raises(InputError, match="exists; --resume continues it"):
        run_abc(tiny_config, path)


def test_a_run_without_its_note_of_versions_goes_on_too(tiny_abc, tiny_config, tmp_path):
    """It can be solved with, so it is a run for everyone."""
    path = shutil.copytree(tiny_abc.path, tmp_path / "run")
    for part in ("vanilla", "calibrated"):
        (path / part / "versions.json").unlink()
    assert Run.open(path).solve("99") == "100"
    assert run_abc(tiny_config, path, resume=True).calibrated.fingerprint == (
        tiny_abc.calibrated.fingerprint
    )
    with pytest.raises(InputError, match="exists; --resume continues it"):
        train_run(tiny_config, path / "vanilla")


def test_the_verdict_says_what_is_true(tiny_abc):
    """Proven; or measured, and how; and it is good only where nothing speaks against it."""
    assert isinstance(tiny_abc.proof, Certificate)
    assert tiny_abc.right
    assert tiny_abc.verdict == (
        "Proven: greedy decoding answers every successor problem in base 10 right, at every length; "
        "measured, it is right on all 600 problems of up to 100 digits."
    )
    wrong = LengthCurve(
        dataclasses.replace(s, correct=s.correct - (s.length == 30)) for s in tiny_abc.curve
    )
    refuted = Counterexample(
        *("successor", 10, "99", 1, "001$", "000$", -2.0, 232, 1, 1e-5, ("99",), 0.1)
    )
    unsure = dataclasses.replace(refuted, given="001$", margin=1e-9)
    seen = "it is right on all 600 problems of up to 100 digits"
    missed = "it is wrong on 2 of 600 problems of up to 100 digits"
    for proof, curve, right, verdict in (
        (None, tiny_abc.curve, True, f"Not proven, but measured: {seen} (no proof was asked for)."),
        (None, wrong, False, f"Not proven, but measured: {missed} (no proof was asked for)."),
        (NotApplicable("why"), tiny_abc.curve, True, f"Not proven, but measured: {seen} (why)."),
        (NotApplicable("why"), wrong, False, f"Not proven, but measured: {missed} (why)."),
        (
            refuted,
            tiny_abc.curve,
            False,
            f"Not proven: the model is wrong on 99; measured, {seen}.",
        ),
        (
            unsure,
            tiny_abc.curve,
            False,
            f"Not proven: the model is not sure of 99; measured, {seen}.",
        ),
    ):
        outcome = dataclasses.replace(tiny_abc, proof=proof, curve=curve)
        assert (outcome.right, outcome.verdict) == (right, verdict)


def test_lengths_are_looked_at_before_anything_is_trained(
    tiny_config, tiny_abc, tmp_path, monkeypatch
):
    with pytest.raises(InputError, match="lengths go up to 10000000, got 10000001"):
        run_abc(tiny_config, tmp_path / "run", lengths=[10_000_001])
    assert not (tmp_path / "run").exists()
    # A vanilla model is not asked where it can't be; the calibrated one is.
    monkeypatch.setattr("lengthwise.runs.run.LONGEST_CACHED", 50)
    path = shutil.copytree(tiny_abc.path, tmp_path / "run")
    curve = run_abc(tiny_config, path, lengths=[4, 60], resume=True).curve
    assert {(s.method, s.length) for s in curve} == {
        ("vanilla", 4),
        ("calibrated", 4),
        ("calibrated", 60),
    }


def test_maps_of_another_model_are_captured_again(tiny_abc, tiny_config, tmp_path):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    strange = dataclasses.replace(tiny_abc.maps, model="0" * 16, exact_match=0.5)
    strange.save(folder / "vanilla" / "maps.safetensors")
    assert kept_maps(Run.open(folder / "vanilla")) is None
    outcome = run_abc(tiny_config, folder, lengths=[4], prove=False, resume=True)
    assert (outcome.maps.exact_match, outcome.maps.model) == (
        tiny_abc.maps.exact_match,
        outcome.vanilla.fingerprint,
    )
    assert kept_maps(outcome.vanilla) is not None


def test_settings_that_are_refused_later_on_are_not_kept(tiny_abc, tmp_path):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    before = (folder / "vanilla" / "config.json").read_bytes()
    refused = make_config({"task": "successor"}, ["retraining.positions=rope"])
    with pytest.raises(
        InputError, match=r"can't go on with retraining\.positions=rope: leave that out"
    ):
        run_abc(refused, folder, resume=True)
    assert (folder / "vanilla" / "config.json").read_bytes() == before
    # Left out, as the message says, it goes on.
    config = make_config({"task": "successor"})
    assert run_abc(config, folder, lengths=[4], prove=False, resume=True).right


def test_a_proven_training_goes_on_without_naming_its_bias(tiny_abc, tmp_path):
    run = shutil.copytree(tiny_abc.path / "calibrated", tmp_path / "run")
    config = make_config({"task": "successor"})
    opened, proof = train_until_proven(config, run, resume=True)
    assert proof.proven
    assert opened.fingerprint == tiny_abc.calibrated.fingerprint
