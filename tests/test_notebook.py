"""Notebooks: what objects show of themselves, and one live line of progress, on a kernel that is played."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from matplotlib.figure import Figure
from PIL import Image

import lengthwise as lw
import lengthwise.report.notebook
from lengthwise.bias import BIASES, CalibratedBias, Line, MatrixBias, Track
from lengthwise.evaluation.mistakes import Mistakes
from lengthwise.pipeline.stages import Observer
from lengthwise.problems.layout import Layout
from lengthwise.progress.notebook import LiveLine, in_notebook
from lengthwise.proof import Counterexample, NotApplicable, estimate
from lengthwise.report import plots
from lengthwise.report.plots import mistake_histogram
from lengthwise.runs.answer import Answer
from lengthwise.settings.sections import ModelSettings
from lengthwise.tasks import TASKS


def size(png: bytes) -> tuple[int, int]:
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    return picture.size


def matrices(width: int = 5) -> MatrixBias:
    layout, lines = Layout(TASKS["successor"](), width), [Line("a[c]")]
    bias = CalibratedBias("successor", 1, [*lines, Line("answer[c-1]")])
    rows = range(layout.target_length)
    return MatrixBias(
        "successor", {site: bias.dense(site, 0, layout, rows) for site in ("self", "cross")}
    )


def counterexample(**changes) -> Counterexample:
    nines = "9" * 1000
    shown = Counterexample(
        *("successor", 10, nines, 3, "0" * 1000 + "1$", "9" * 1000 + "1$"),
        *(-2.5, 232, 7, 1e-6, (nines,), 0.1),
    )
    return replace(shown, **changes)


# --- what objects show ---


def test_a_curve_is_a_picture_and_a_table(tiny_abc):
    curve = tiny_abc.curve
    assert size(curve._repr_png_())[0] > 500
    html = curve._repr_html_()
    assert html.count("<img ") == 1
    assert re.findall(r"<tr><th[^>]*>(\d+)</th>", html) == ["4", "30", "100"]
    wrong = next(s for s in curve if s.method == "vanilla" and s.length == 100)
    assert f"({wrong.correct} of {wrong.n})" in html
    assert repr(curve) == f"LengthCurve(successor: {len(curve)} scores, 4 to 100 digits)"
    # A share is never rounded to all, nor to none.
    almost = replace(curve.scores[0], n=100_000, correct=99_999)
    assert "&gt; 99.9" in lw.LengthCurve([almost])._repr_html_()


def test_a_curve_without_scores_says_so():
    curve = lw.LengthCurve([])
    assert (repr(curve), curve._repr_png_()) == ("LengthCurve(no scores)", None)
    assert curve._repr_html_() == "<p>No scores.</p>"
    with pytest.raises(lw.InputError, match="without scores can't be drawn"):
        curve.plot()


def test_a_table_of_many_lengths_ends(tiny_abc):
    one = tiny_abc.curve.scores[0]
    html = lw.LengthCurve(replace(one, length=n) for n in range(1, 1001))._repr_html_()
    assert html.count("<tr>") < 100
    assert "... and 940 lengths more" in html


def test_maps_are_a_picture(tiny_abc):
    assert size(tiny_abc.maps._repr_png_())[0] > 500
    assert repr(tiny_abc.maps) == (
        "AttentionMaps(successor: 2 layers of 4 heads, mean of 128 problems of at most 4 digits)"
    )


def test_a_calibrated_bias_is_a_table_of_sentences(tiny_abc):
    html = tiny_abc.bias._repr_html_()
    for _, heads, words in tiny_abc.bias.readings():
        assert f"{heads} {words}" in html
    assert re.fullmatch(r"CalibratedBias\(successor: \d lines for 4 heads\)", repr(tiny_abc.bias))


def test_matrices_are_sentences_and_a_picture_while_there_is_something_to_see():
    assert size(matrices()._repr_png_())[0] > 100
    assert "Matrices for successor" in matrices()._repr_html_()
    assert "<img" in matrices()._repr_html_()
    assert matrices(200)._repr_png_() is None
    assert "<img" not in matrices(200)._repr_html_()
    assert repr(matrices()) == "MatrixBias(successor: 1 heads, at most 5 digits)"


def test_a_run_is_a_small_table(tiny_abc, tmp_path):
    html = tiny_abc.vanilla._repr_html_()
    for fact in ("successor, base 10", "vanilla", str(tiny_abc.vanilla.path), "Criterion reached"):
        assert fact in html
    untrained = lw.Run(tmp_path, tiny_abc.vanilla.config, tiny_abc.vanilla.bias)
    assert "no measurement yet" in untrained._repr_html_()
    (tmp_path / "metrics.jsonl").write_text("{\n")
    assert "no measurement yet" in untrained._repr_html_()


def test_settings_are_a_table_of_what_was_set(tiny_config):
    html = tiny_config._repr_html_()
    assert re.search(r">training.learning_rate</th><td[^>]*>0.005</td>", html)
    assert "training.loss" not in html


def test_maps_can_be_compared(tiny_abc):
    assert tiny_abc.maps == tiny_abc.maps
    assert tiny_abc.maps != lw.capture(tiny_abc)


def test_an_outcome_holds_its_parts(tiny_abc):
    html = tiny_abc._repr_html_()
    assert html.startswith("<p>Proven: greedy decoding answers every successor problem")
    for part in (tiny_abc.curve, tiny_abc.bias):
        assert part._repr_html_() in html
    assert str(tiny_abc.calibrated.path) in html
    assert repr(tiny_abc) == f"Outcome({str(tiny_abc.path)!r}: successor, proven)"


def test_proofs_are_tables(tiny_abc):
    proof = tiny_abc.proof
    for fact in (proof.claim, f"{proof.contexts} ", f"{proof.smallest_margin:.3f}"):
        assert fact.strip() in proof._repr_html_()
    assert repr(proof).startswith("Certificate(successor in base 10: ")
    for shown in (counterexample(), counterexample(given="0" * 1000 + "1$")):
        assert "9..." in shown._repr_html_()
        assert len(shown._repr_html_()) < 1500
        assert len(repr(shown)) < 200
    assert "refuted by" in counterexample()._repr_html_()
    assert "rounding may move" in counterexample(given="0" * 1000 + "1$")._repr_html_()
    assert "at most" in estimate(tiny_abc.calibrated)._repr_html_()


def test_html_is_escaped(tiny_abc):
    evil = "<script>alert('&')</script>"
    bias = CalibratedBias("addition", 1, [Line(Track.along(evil, 0))])
    curve = lw.LengthCurve([replace(tiny_abc.curve.scores[0], suite=evil)])
    for shown in (NotApplicable(evil), counterexample(problem=evil), bias, curve):
        assert "<script" not in shown._repr_html_()
        assert "&lt;script&gt;" in shown._repr_html_()


def test_other_objects_are_one_short_line(tiny_abc):
    run = tiny_abc.calibrated
    shown = [Answer("1" * 10**6, "1" * 10**6), run.task, run.config.layout(), tiny_abc.vanilla.bias]
    shown += [make(ModelSettings()) for make in BIASES.values()]
    for thing in shown:
        assert len(repr(thing)) < 250
        assert "\n" not in repr(thing)
        assert " object at 0x" not in repr(thing)
    assert repr(run.answers("99")) == "[Answer('100', work='001')]"
    assert str(run.answers("99")[0]) == "100"


def test_every_figure_shows_itself(tiny_abc, tmp_path):
    task = tiny_abc.vanilla.task
    figures = [
        plots.length_curve(tiny_abc.curve),
        plots.attention_maps(tiny_abc.maps),
        plots.bias_map(tiny_abc.bias, Layout(task, 5)),
        plots.training_curves({"vanilla": tiny_abc.vanilla.metrics()}),
        mistake_histogram([Mistakes(4, "uniform", 10, (1, 2, 0, 0, 1))]),
        tiny_abc.curve.plot(),
        tiny_abc.maps.plot(),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        assert size(figure._repr_png_())[0] > 100


@pytest.mark.parametrize("backend", ["", "module://no_such_backend", "TkAgg"])
def test_pictures_need_no_backend_and_no_pyplot(tiny_abc, backend):
    code = (
        "import lengthwise as lw, sys\n"
        f"curve = lw.LengthCurve.load({str(tiny_abc.path)!r})\n"
        "assert curve._repr_png_()[1:4] == b'PNG'\n"
        "assert curve.plot()._repr_png_()[1:4] == b'PNG'\n"
        "assert not {'matplotlib.pyplot', 'IPython'} & set(sys.modules)\n"
    )
    environment = {"MPLBACKEND": backend, "PYTHONPATH": ":".join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


# --- progress ---


class Kernel:
    """IPython in a notebook, as far as a line of progress needs it; keeps what was shown."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
        self.cells: list[list[str]] = []
        self.fails = fails
        shell = SimpleNamespace(kernel=object())
        package, module = ModuleType("IPython"), ModuleType("IPython.display")
        vars(package).update(get_ipython=lambda: shell, display=module)
        vars(module).update(display=self.display)
        monkeypatch.setitem(sys.modules, "IPython", package)
        monkeypatch.setitem(sys.modules, "IPython.display", module)
        # Each update is shown, however soon it comes.
        monkeypatch.setattr("lengthwise.progress.notebook._EVERY", 0.0)

    def display(self, data: dict, *, raw: bool, display_id: bool) -> SimpleNamespace:
        assert raw
        assert display_id
        if self.fails:
            raise RuntimeError("no front end")
        cell = [data["text/plain"]]
        self.cells.append(cell)
        return SimpleNamespace(update=lambda data, raw: cell.append(data["text/plain"]))


@pytest.mark.trains
def test_every_call_has_one_line_that_lives(tiny_config, tmp_path, monkeypatch, capfd):
    kernel = Kernel(monkeypatch)
    assert in_notebook()
    outcome = lw.abc(tiny_config, out=tmp_path / "a", lengths=[4, 9])
    (line,) = kernel.cells
    assert line[0] == "Train vanilla: ..."
    assert any("Train vanilla: step 50 of at most 3,000, loss " in text for text in line)
    assert any(text.startswith("Train vanilla ") and "Retrain: step" in text for text in line)
    assert any("local contexts" in text for text in line)
    stages = r"Train vanilla .* s · Calibrate .* s · Retrain .* s · Prove .* s · Evaluate .* s \(8 scores\)"
    assert re.fullmatch(stages, line[-1])
    once = {"training.max_steps": 20, "training.until": "max_steps"}
    lw.train(tiny_config, out=tmp_path / "b", set=once)
    lw.evaluate(outcome, [4], samples=9)
    lw.prove(outcome)
    first = [cell[0] for cell in kernel.cells]
    assert first[1:] == ["Train vanilla: ...", "Evaluate: ...", "Prove: ..."]
    assert re.fullmatch(
        r"Train vanilla \d+\.\d s \(20 steps, exact match .*%\)", kernel.cells[1][-1]
    )
    assert any("1 of 2: calibrated, uniform, 4 digits: 100.0%" in text for text in kernel.cells[2])
    assert re.fullmatch(r"Prove .* s \((\d+) of \1 local contexts\)", kernel.cells[3][-1])
    assert capfd.readouterr() == ("", "")


def test_what_fails_says_where_it_stopped(tiny_abc, monkeypatch):
    kernel = Kernel(monkeypatch)
    with pytest.raises(RuntimeError, match="tells every row where it is"):
        lw.prove(tiny_abc.vanilla)
    assert kernel.cells[0][-1] == "Prove: stopped"


def test_silence_where_it_is_asked_for(tiny_abc, monkeypatch, capfd):
    kernel = Kernel(monkeypatch)
    lw.evaluate(tiny_abc, 4, samples=9, progress=False)
    lw.prove(tiny_abc, progress=False)
    told = []
    lw.evaluate(tiny_abc, 4, samples=9, on_progress=told.append)
    lw.prove(tiny_abc, on_progress=lambda *counts: told.append(counts))
    monkeypatch.setenv("RANK", "1")
    lw.prove(tiny_abc)
    assert kernel.cells == []
    assert len(told) > 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.trains
def test_an_own_observer_takes_the_place_of_the_line(tiny_config, tmp_path, monkeypatch):
    kernel, seen = Kernel(monkeypatch), []

    class Own(Observer):
        def begin(self, stage, config):
            seen.append(stage)

    lw.abc(tiny_config, out=tmp_path / "a", lengths=4, observer=Own(), progress=True)
    assert seen == ["train", "calibrate", "retrain", "prove", "evaluate"]
    rows = []
    once = {"training.max_steps": 20, "training.until": "max_steps"}
    lw.train(tiny_config, out=tmp_path / "b", set=once, on_progress=rows.append)
    assert [row.step for row in rows] == [20]
    assert kernel.cells == []


@pytest.mark.parametrize("fails", ["display", "handle", "ipython", "package"])
def test_no_front_end_breaks_the_work(tiny_abc, monkeypatch, fails):
    kernel = Kernel(monkeypatch, fails=fails == "display")
    if fails == "handle":
        monkeypatch.setattr(sys.modules["IPython.display"], "display", lambda *_, **__: None)
    if fails == "ipython":
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: 1 / 0)
    if fails == "package":
        monkeypatch.delitem(sys.modules, "IPython.display")
        monkeypatch.setitem(sys.modules, "IPython.display", None)
    assert lw.prove(tiny_abc).proven
    assert kernel.cells == []


def test_a_script_shows_nothing_unless_asked(tiny_abc, capfd):
    assert not in_notebook()
    lw.evaluate(tiny_abc, 4, samples=9)
    assert capfd.readouterr() == ("", "")
    lw.evaluate(tiny_abc, 4, samples=9, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("Evaluate at each length: ")


def test_a_terminal_of_ipython_is_no_notebook(monkeypatch):
    package = ModuleType("IPython")
    vars(package).update(get_ipython=lambda: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", package)
    assert not in_notebook()


def test_the_line_is_not_updated_faster_than_anyone_reads(monkeypatch):
    kernel = Kernel(monkeypatch)
    monkeypatch.setattr("lengthwise.progress.notebook._EVERY", 3600.0)
    line = LiveLine()
    line.begin("prove", lw.Config())
    for contexts in range(1000):
        line.checked(contexts, 1000)
    line.end("prove", 1.0)
    assert len(kernel.cells[0]) == 2
