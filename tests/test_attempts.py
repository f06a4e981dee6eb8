"""What is tried again where a step fails: other vanilla models, and trainings with a drill."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil

import pytest

from lengthwise import pipeline
from lengthwise.bias import CalibratedBias, Line
from lengthwise.calibration import NoLinesError, auto
from lengthwise.pipeline import attempts, run_abc, stages, until_proven
from lengthwise.pipeline.attempts import train_and_calibrate
from lengthwise.pipeline.stages import Clock, Observer
from lengthwise.proof import Counterexample
from lengthwise.runs.folder import MAPS
from lengthwise.runs.metrics import Metrics
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.training.trainer import NotInterpolatedError

pytestmark = pytest.mark.trains


class Listener(Observer):
    """Writes down what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, what: str) -> None:
        self.notes.append(what)


@pytest.fixture
def begun(tiny_abc, tmp_path):
    """A folder in which the vanilla model is trained, and nothing else done."""
    path = tmp_path / "run"
    shutil.copytree(tiny_abc.path / "vanilla", path / "vanilla")
    (path / "vanilla" / MAPS).unlink()
    return path


def hide_lines_of(monkeypatch, fingerprints: set[str]) -> list[str]:
    """Let the attention of some models show nothing; returns the models that are looked at."""
    looked_at, real = [], attempts.calibrate

    def calibrate(maps, **settings):
        looked_at.append(maps.model)
        if maps.model in fingerprints:
            raise NoLinesError("nothing")
        return real(maps, **settings)

    monkeypatch.setattr(attempts, "calibrate", calibrate)
    return looked_at


def test_another_vanilla_model_where_the_first_hides_its_lines(
    tiny_abc, tiny_config, begun, monkeypatch
):
    first = tiny_abc.vanilla.fingerprint
    looked_at = hide_lines_of(monkeypatch, {first})
    listener = Listener()
    outcome = run_abc(tiny_config, begun, lengths=[4], resume=True, observer=listener)
    assert outcome.right
    assert looked_at == [first, outcome.vanilla.fingerprint]
    assert Run.open(begun / "vanilla-1").fingerprint == first
    seed = outcome.vanilla.config.seed
    assert seed != tiny_config.seed
    # The same settings otherwise, and one seed for both models.
    assert outcome.vanilla.config.model_copy(update={"seed": 1}) == tiny_abc.vanilla.config
    assert outcome.calibrated.config.seed == seed
    assert listener.notes[0].startswith(
        "The vanilla model of seed 1 shows no lines that can be read along: another is trained, of seed "
        f"{seed} ("
    )
    # It goes on with that one, under the seed that was asked for, too; and with the settings of before.
    for config in (tiny_config, make_config({"task": "successor"})):
        again = run_abc(config, begun, lengths=[4], resume=True)
        assert again.vanilla.fingerprint == outcome.vanilla.fingerprint
        assert again.calibrated.fingerprint == outcome.calibrated.fingerprint
    assert not (begun / "vanilla-2").exists()
    # Ended between two of them, it trains the same one.
    shutil.rmtree(begun / "vanilla")
    shutil.rmtree(begun / "calibrated")
    made = train_and_calibrate(make_config({"task": "successor"}), begun, Clock(), resume=True)
    assert made[0].fingerprint == outcome.vanilla.fingerprint


def test_force_removes_models_set_aside(tiny_config, begun, monkeypatch):
    shutil.copytree(begun / "vanilla", begun / "vanilla-1")
    monkeypatch.setattr(pipeline, "train_and_calibrate", lambda *arguments, **settings: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_abc(tiny_config, begun, force=True)
    assert not (begun / "vanilla-1").exists()


def test_no_other_vanilla_model_without_need(tiny_abc, tiny_values, begun, monkeypatch):
    """Where one attempt is allowed, and where it is not known that there are lines."""
    looked_at = hide_lines_of(monkeypatch, {tiny_abc.vanilla.fingerprint})
    tiny_values["calibration"] |= {"attempts": 1}
    with pytest.raises(NoLinesError, match="nothing"):
        run_abc(make_config(tiny_values), begun, resume=True)
    tiny_values["calibration"] |= {"attempts": 3}
    monkeypatch.setattr(attempts, "has_rule", lambda task: False)
    with pytest.raises(NoLinesError, match="nothing"):
        run_abc(make_config(tiny_values), begun, resume=True)
    assert len(looked_at) == 2
    assert not (begun / "vanilla-1").exists()


def test_lines_that_leave_a_case_open_are_settled_for_only_with_the_last(
    tiny_abc, tiny_config, begun, monkeypatch
):
    monkeypatch.setattr(attempts, "suffices", lambda maps, bias: False)
    config = Run.open(begun / "vanilla").config
    arguments = (config, begun / "calibrated", Run.open(begun / "vanilla"))
    with pytest.raises(NoLinesError, match="shows lines that leave a case open"):
        attempts.calibrate_and_retrain(*arguments, settle=False)
    _, _, run = attempts.calibrate_and_retrain(*arguments)
    assert run.fingerprint == tiny_abc.calibrated.fingerprint


@pytest.mark.parametrize("prove", [True, False])
def test_lines_with_which_a_proof_would_be_too_long_are_settled_for_only_with_the_last(
    tiny_abc, tiny_config, begun, monkeypatch, prove
):
    monkeypatch.setattr(auto, "BUDGET", 100)
    vanilla = Run.open(begun / "vanilla")
    monkeypatch.setattr(stages, "train_run", lambda config, path, **settings: vanilla)
    arguments = (vanilla.config, begun / "calibrated", vanilla)
    if prove:
        with pytest.raises(NoLinesError, match="shows lines with 232 contexts, too many to prove"):
            attempts.calibrate_and_retrain(*arguments, settle=False)
    _, bias, _ = attempts.calibrate_and_retrain(*arguments, settle=prove, prove=prove)
    assert bias == tiny_abc.bias


def prove_in_turn(monkeypatch, tiny_abc, failing: list[int], attempts_set: int) -> int:
    """Trainings that `prove_and_drill` does where the proofs find so many contexts failing."""
    left = list(failing)
    refuted = Counterexample(
        *("successor", 10, "1999", 0, "0002$", "0001$", -1.0, 232, 1, 1e-4, ("1999",), 0.1)
    )
    monkeypatch.setattr(
        until_proven,
        "prove_run",
        lambda run, **arguments: dataclasses.replace(refuted, failing=left.pop(0)),
    )
    run = tiny_abc.calibrated
    config = run.config.model_copy(
        update={"calibration": run.config.calibration.model_copy(update={"attempts": attempts_set})}
    )
    trained = []

    class Idle(Clock):
        def stage(self, stage, config):
            return contextlib.nullcontext()

        def train(self, stage, config, path, **options):
            trained.append(config)
            return Run(run.path, config, run.bias)

    _, proof = until_proven.prove_and_drill(Run(run.path, config, run.bias), tiny_abc.bias, Idle())
    assert not proof.proven
    return 1 + len(trained)


@pytest.mark.parametrize(
    ("failing", "attempts_set", "trainings"),
    [
        ([4, 4, 4, 4], 3, 3),
        ([4, 9, 5, 1], 3, 3),
        # The third is the best so far: two more.
        ([4, 4, 1, 2, 3, 0], 3, 5),
        ([9, 8, 7, 7, 7, 0], 3, 5),
        ([4, 4], 1, 1),
        ([4, 5, 0], 2, 2),
        ([4, 3, 3, 0], 2, 3),
    ],
)
def test_drilling_ends_when_no_progress_is_made(
    tiny_abc, monkeypatch, failing, attempts_set, trainings
):
    assert prove_in_turn(monkeypatch, tiny_abc, failing, attempts_set) == trainings


@pytest.mark.parametrize("steps_set", [True, False])
def test_another_vanilla_model_where_the_first_does_not_interpolate(
    tiny_abc, tiny_values, tmp_path, monkeypatch, steps_set
):
    """But for a number of steps that somebody set."""
    seeds = []

    def train_run(config, path, **arguments):
        seeds.append(config.seed)
        shutil.copytree(tiny_abc.path / "vanilla", path)
        run = Run.open(path)
        if len(seeds) < 3:
            raise NotInterpolatedError(run, Metrics(**run.metrics()[-1]))
        return Run(path, config, run.bias)

    monkeypatch.setattr(stages, "train_run", train_run)
    settled = []

    def calibrate_and_retrain(*arguments, settle, **settings):
        settled.append(settle)
        return "maps", "bias", "run"

    monkeypatch.setattr(attempts, "calibrate_and_retrain", calibrate_and_retrain)
    if not steps_set:
        del tiny_values["training"]["max_steps"]
    config, listener = make_config(tiny_values), Listener()
    clock = Clock(listener)
    clock.seconds["train"] = 0.0
    if steps_set:
        with pytest.raises(NotInterpolatedError):
            train_and_calibrate(config, tmp_path, clock)
        assert seeds == [1]
        return
    vanilla, *_ = train_and_calibrate(config, tmp_path, clock)
    assert vanilla.config.seed == seeds[-1]
    assert len(set(seeds)) == 3
    # The third is the last: whatever its lines are, a model is trained with them.
    assert settled == [True]
    assert [note.split(":")[0] for note in listener.notes] == [
        f"The vanilla model of seed {seed} does not interpolate in "
        f"{tiny_abc.vanilla.metrics()[-1]['step']} steps"
        for seed in (1, 1)  # the seed in the copied folder
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vanilla", "vanilla-1", "vanilla-2"]


@pytest.mark.parametrize("stuck", [True, False])
@pytest.mark.parametrize("another", [True, False])
@pytest.mark.parametrize("best", [0.8, 0.95])
def test_lines_that_nothing_is_learned_with_give_way(
    tiny_abc, begun, monkeypatch, stuck, another, best
):
    """To those that each query reads itself, then to another vanilla model's; else more steps are taken."""
    other = CalibratedBias(tiny_abc.bias.format, 4, [*tiny_abc.bias.lines, Line("a[c-2]", 0)])
    monkeypatch.setattr(attempts, "direct", lambda maps: other)
    row = {**tiny_abc.calibrated.metrics()[-1], "exact_match": best, "phase": "stable"}
    trained, listener = [], Listener()

    def train_run(config, path, *, bias, **arguments):
        trained.append((bias, config.training.max_steps))
        path.mkdir(exist_ok=True)
        raise NotInterpolatedError(Run(path, config, bias), Metrics(**row))

    monkeypatch.setattr(stages, "train_run", train_run)
    monkeypatch.setattr(attempts, "read_metrics", lambda run: [Metrics(**row)])
    vanilla = Run.open(begun / "vanilla")
    gives_way = stuck and best < 0.9
    error = NoLinesError if gives_way and another else NotInterpolatedError
    with pytest.raises(error):
        attempts.calibrate_and_retrain(
            *(vanilla.config, begun / "calibrated", vanilla),
            clock=Clock(listener),
            another=another,
            stuck=stuck,
        )
    once = trained[0][1]
    more = [(tiny_abc.bias, once * times) for times in (1, 2, 3)]
    last = [(other, once * times) for times in ((1,) if another else (1, 2, 3))]
    assert trained == ([more[0], *last] if gives_way else more)
    told = "Its lines tell every symbol, but at most 80% was learned with them: others, that each query"
    assert any(note.startswith(told) for note in listener.notes) == gives_way
    assert (begun / "calibrated-1").exists() == (gives_way and another)


def test_a_training_with_lines_that_took_the_place_of_others_goes_on(tiny_abc, begun, monkeypatch):
    """Whether or not steps are set now: as the message says that a training goes on."""
    other = CalibratedBias(tiny_abc.bias.format, 4, [*tiny_abc.bias.lines, Line("a[c-2]", 0)])
    monkeypatch.setattr(attempts, "direct", lambda maps: other)
    vanilla, folder = Run.open(begun / "vanilla"), begun / "calibrated"
    Run.create(folder, vanilla.config.for_retraining(), other)
    resumed = []

    def train_run(config, path, *, bias, resume, **arguments):
        resumed.append((bias, resume))
        return Run(path, config, bias)

    monkeypatch.setattr(stages, "train_run", train_run)
    attempts.calibrate_and_retrain(vanilla.config, folder, vanilla, resume=True)
    assert resumed == [(other, True)]
    assert not (begun / "calibrated-1").exists()
