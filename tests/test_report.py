"""The report: what it says, that it is honest, whole and self-contained, and the pictures."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import lengthwise
import lengthwise.report.notebook
from lengthwise.bias import OWN_TOKEN, CalibratedBias, Line, Track
from lengthwise.calibration import Evidence
from lengthwise.calibration.maps import AttentionMaps, candidates
from lengthwise.evaluation.curve import LengthCurve, Score, wilson
from lengthwise.problems.format import Format
from lengthwise.problems.layout import Layout
from lengthwise.report import canvas, plots, summary
from lengthwise.report.html import write_report
from lengthwise.runs.folder import CALIBRATED, MAPS, METRICS, VANILLA, VERSIONS
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, InputError, make_config
from lengthwise.settings.methods import METHODS
from lengthwise.tasks import TASKS

pytestmark = pytest.mark.trains

PNG = b"\x89PNG\r\n\x1a\n"


def score(method: str, length: int, correct: int, n: int = 200, **changes) -> Score:
    low, high = wilson(correct, n)
    row = Score(
        problem_seed=0,
        task="addition",
        base=10,
        method=method,
        seed=0,
        suite="uniform",
        length=length,
        width=length + 1,
        split="test",
        n=n,
        correct=correct,
        low=low,
        high=high,
        worst_loss=0.01,
        seconds=0.1,
    )
    return dataclasses.replace(row, **changes)


def curve(correct: int = 200, seed: int = 0) -> LengthCurve:
    """Both methods and suites at 3 and 40 digits; `correct` is of calibrated, 40 and uniform."""
    return LengthCurve(
        score(method, length, right, seed=seed, suite=suite)
        for method, suite, length, right in (
            (VANILLA, "uniform", 3, 200),
            (VANILLA, "carry", 3, 200),
            (VANILLA, "uniform", 40, 0),
            (VANILLA, "carry", 40, 1),
            (CALIBRATED, "uniform", 3, 200),
            (CALIBRATED, "carry", 3, 200),
            (CALIBRATED, "uniform", 40, correct),
            (CALIBRATED, "carry", 40, 200),
        )
    )


def make_bias() -> CalibratedBias:
    return CalibratedBias(
        "addition",
        2,
        [
            Line("a[c]"),
            Line("b[c-1]", 1),
            Line("answer[c-1]"),
            Line("answer[c-1]", 1),
        ],
    )


def make_maps() -> AttentionMaps:
    """Random attention: 2 layers, 2 heads, 3 digits padded to 4."""
    layout = Layout(TASKS["addition"](10), 4)
    torch.manual_seed(0)
    weights = {site: torch.rand(2, 2, 5, layout.keys(site)) for site in ("self", "cross")}
    weights["self"] = weights["self"].tril()
    return AttentionMaps(
        format=Format("addition"),
        length=3,
        width=4,
        problems=77,
        weights={
            site: values / values.sum(dim=-1, keepdim=True) for site, values in weights.items()
        },
        exact_match=1.0,
        knockout=dict.fromkeys(candidates(layout, 3), 0.75),
    )


def metrics(step: int, phase: str = "stable") -> dict:
    return {
        "step": step,
        "loss": 1.0 / step,
        "validation_loss": 1.5 / step,
        "worst_loss": 3.0,
        "exact_match": min(1.0, step / 200),
        "learning_rate": 1e-3,
        "seconds": step / 10,
        "tokens_per_second": 1000.0,
        "phase": phase,
    }


def make_run(path: Path, config: Config, bias: CalibratedBias | None) -> Run:
    """An untrained run with three rows of metrics."""
    run = Run.create(path, config, bias)
    run.save_model(make_model(config))
    rows = [metrics(100), metrics(150), metrics(200, "done")]
    (path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return run


def settings(seed: int = 0) -> Config:
    return make_config(
        {
            "task": "addition",
            "seed": seed,
            "device": "cpu",
            "data": {"length": 3},
            "model": {"width": 8, "heads": 2, "layers": 2, "feed_forward": 8},
        }
    )


def make_folder(path: Path, *, correct: int = 200, seed: int = 0) -> Path:
    """A folder as `abc` leaves it, without its work."""
    config = settings(seed)
    make_run(path / VANILLA, config, None)
    make_run(path / CALIBRATED, config.for_retraining(), make_bias())
    make_maps().save(path / VANILLA / MAPS)
    curve(correct, seed).save(path)
    return path


class Page(HTMLParser):
    """What a test asks of a page: elements with attributes, text, and the inlined data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.within: list[str] = []
        self.headings: list[str] = []
        self.source = path.read_text("utf-8")
        self.data = ""
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.within.append(tag)

    def handle_endtag(self, tag):
        assert self.within.pop() == tag, f"<{tag}> is not closed in order"

    def handle_data(self, data):
        if "script" in self.within:
            self.data += data
        elif "style" not in self.within:
            self.words.append(data)
            if "h1" in self.within:
                self.headings.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


# --- what it says


def test_headline_of_a_success_counts_each_suite():
    assert summary.headline(curve(), 3) == (
        "Trained on addition of at most 3 digits; right on 200 of 200 uniform and 200 of 200 carry "
        "problems of 40 digits."
    )


def test_headline_of_a_failure_says_so_and_where():
    text = summary.headline(curve(150), 3)
    assert "fails on 50 of 200 uniform and 0 of 200 carry problems of 40 digits" in text
    assert text.endswith(" No errors up to 3 digits.")
    assert "right on" not in text


def test_headline_names_the_first_length_that_fails():
    scores = LengthCurve(score(CALIBRATED, n, c) for n, c in ((3, 200), (20, 199), (40, 10)))
    text = summary.headline(scores, 3)
    assert "fails on 190 of 200 uniform problems of 40 digits" in text
    assert text.endswith(" No errors up to 3 digits; the first at 20 digits.")
    hole = LengthCurve(score(CALIBRATED, n, c) for n, c in ((3, 200), (20, 199), (40, 200)))
    assert summary.headline(hole, 3).endswith(
        "right on 200 of 200 uniform problems of 40 digits, but fails on 1 of 200 uniform of 20 "
        "digits."
    )


def test_headline_of_a_model_that_fails_at_every_length():
    scores = LengthCurve(score(CALIBRATED, n, 5) for n in (3, 40))
    text = summary.headline(scores, 3)
    assert text.endswith(" It fails at 3 digits already: 195 of 200 uniform.")
    assert "No errors" not in text


def test_headline_says_when_nothing_longer_was_measured_and_what_vanilla_is():
    assert summary.headline(LengthCurve([score(VANILLA, 3, 200)]), 3) == (
        "A vanilla model, trained on addition of at most 3 digits, is right on 200 of 200 uniform "
        "problems of 3 digits. No longer problems were measured."
    )


def test_any_method_has_a_headline_a_comparison_and_a_colour(tmp_path):
    names = ["alibi", "rope", *sorted({*METHODS} - {"alibi", "rope"})]
    scores = LengthCurve(score(name, n, c) for name in names for n, c in ((3, 200), (40, 7)))
    text = summary.headline(scores, 3)
    assert text.startswith("An alibi model, trained on addition of at most 3 digits, fails on 193")
    told = " ".join(summary.standing(scores)).replace("\u00a0", " ")
    assert "The rope model is right on 7 of 200 uniform problems of 40 digits." in told
    assert told.count("The vanilla model") == 1
    assert "before calibration" not in told
    assert summary.score_rows(scores, names)[0].heads == ("3", "uniform")
    assert plots.length_curve(scores, tmp_path / "methods.png").exists()
    assert len({*canvas.colours_of(names).values()}) > 10
    assert str(scores).count("sin_periodical") == 2


def test_headline_adds_up_seeds_and_one_bad_seed_spoils_it():
    good = curve() + curve(seed=1)
    assert "400 of 400 uniform" in summary.headline(good, 3)
    assert "over 2 seeds" in summary.headline(good, 3)
    assert "fails on 1 of 400 uniform" in summary.headline(curve() + curve(199, seed=1), 3)


def test_standing_compares_with_vanilla_and_warns_of_known_problems():
    text = " ".join(summary.standing(curve())).replace("\u00a0", " ")
    assert (
        "At 40 digits the 95 % intervals of the share of right answers reach down to 98.1 %" in text
    )
    assert "right on 0 of 200 uniform and 1 of 200 carry problems of 40 digits" in text
    assert "trained on" not in text
    known = summary.standing(LengthCurve([score(VANILLA, 1, 9, n=9, split="any")]))
    assert "at 1 digit: the scores there may count problems that were trained on" in known[-1]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.99999, "> 99.9 %"),
        (0.9994, "99.9 %"),
        (0.0001, "< 0.1 %"),
        (0.5, "50.0 %"),
        (-0.01, "-1.0 %"),
    ],
)
def test_percent_never_rounds_to_none_or_all(share, text):
    assert summary.percent(share).replace("\u00a0", " ") == text


def test_interval_is_rounded_outwards():
    row = score(CALIBRATED, 40, 100, low=0.43199, high=0.56701)
    assert summary.interval(row.low, row.high).replace("\u00a0", " ") == "43.1 to 56.8 %"


def test_extrapolation_gives_token_lengths_and_its_verdict():
    text = " ".join(summary.extrapolation(curve(), settings()))
    assert "padded to 4 digits: 9 source tokens and 5 target tokens" in text
    assert "padded to 41 digits: 83 source tokens and 42 target tokens" in text
    assert "both the value length and the token length extrapolate" in text
    wide = make_config({"task": "addition", "data": {"length": 3, "width": 50}})
    assert "the token length does not" in " ".join(summary.extrapolation(curve(), wide))
    short = LengthCurve([score(VANILLA, 3, 200)])
    assert "nothing extrapolates" in " ".join(summary.extrapolation(short, settings()))


def test_evidence_rows_tell_chosen_default_added_and_left_out():
    a = Track.parse("a[c]")
    b = Track.parse("b[c-1]")
    plus = Track.parse("+")
    evidence = [
        Evidence(a, support=0.4, need=1.0, preference=(1.0, 0.0)),
        Evidence(b, support=0.01, need=0.4, preference=(1.0, 0.0)),
        Evidence(OWN_TOKEN, support=0.9, need=0.4, preference=(1.0, 0.0)),
        Evidence(plus, support=-0.001, need=0.0, preference=(1.0, 0.0)),
    ]
    rows = summary.evidence_rows(evidence, make_bias())
    assert [row.cells[0] for row in rows] == [
        "chosen",
        "added to have more lines",
        "default of heads left over",
        "no",
    ]
    assert rows[0].heads == ("cross", "the digit of a in the column being written")
    assert rows[3].cells[1] == "0.00"
    assert summary.evidence_rows(evidence, None)[0].cells[0] == "passed, but not in the bias"


def test_combined_rows_hold_every_folder_the_mean_and_gaps():
    other = LengthCurve(s for s in curve(100, seed=1) if s.length == 40)
    rows = {row.heads: row.cells for row in summary.combined_rows([curve(), other])}
    plain = [cell and cell.replace("\u00a0", " ") for cell in rows[CALIBRATED, "uniform", "40"]]
    assert plain == ["100 %", "50.0 %", "75.0 %", "300 of 400"]
    assert rows[CALIBRATED, "uniform", "3"][1] is None
    assert next(iter(rows))[0] == CALIBRATED


# --- the page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "first")


def test_page_is_self_contained(folder: Path, tmp_path: Path):
    out = write_report([folder], tmp_path / "report.html")
    assert out == tmp_path / "report.html"
    page = Page(out)
    assert page.within == []
    assert len(page.all("img")) == 4
    for image in page.all("img"):
        assert (image["src"] or "").startswith("data:image/png;base64,")
        assert len(image["alt"] or "") > 20
    for tag in ("link", "iframe", "object", "video", "audio", "source", "base"):
        assert page.all(tag) == []
    assert [script["type"] for script in page.all("script")] == ["application/json"]
    assert all((a["href"] or "").startswith("#") for a in page.all("a"))
    assert not re.search(
        r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", page.source)
    )
    assert all("scope" in cell for cell in page.all("th"))


def test_page_tells_what_was_measured(folder: Path, tmp_path: Path):
    page = Page(write_report([folder], tmp_path / "report.html"))
    assert page.headings == [summary.headline(curve(), 3)]
    for words in (
        "1 of 200",
        "head 0 reads a[c], the digit of a in the column being written",
        "the digit of b in the column before it",
        "200 of at most 20000",
        "20.0 s",
        "83 source tokens and 42 target tokens",
        '"feed_forward": 8',
        "numpy " + np.__version__,
    ):
        assert words in page.text, words
    data = json.loads(page.data)["folders"][0]
    assert data["results"] == curve().records()
    assert data["runs"][CALIBRATED]["metrics"][-1] == metrics(200, "done")
    assert len(data["bias"]) == 4


def test_page_of_a_failure_is_honest(tmp_path: Path):
    page = Page(write_report([make_folder(tmp_path / "bad", correct=7)], tmp_path / "r.html"))
    assert "fails on 193 of 200 uniform" in page.headings[0]
    assert "right on" not in page.headings[0]
    assert "7 of 200" in page.text


def test_page_escapes(tmp_path: Path):
    evil = make_folder(
        tmp_path / "<b>&amp; </script><script>alert(1)</script>".replace("/", "\u2215")
    )
    scores = [dataclasses.replace(s, suite="</script><i>") for s in curve()]
    LengthCurve(scores).save(evil)
    page = Page(write_report([evil], tmp_path / "r.html"))
    assert len(page.all("script")) == 1
    assert page.all("b") == page.all("i") == []
    assert "200 of 200 </script><i> problems" in page.headings[0]
    data = json.loads(page.data)["folders"][0]
    assert data["results"][0]["suite"] == "</script><i>"
    assert data["name"] == evil.name


def test_numbers_that_json_lacks_become_null(folder: Path, tmp_path: Path):
    LengthCurve([score(CALIBRATED, 40, 0, worst_loss=float("inf"))]).save(folder)
    page = Page(write_report([folder], tmp_path / "r.html"))
    assert json.loads(page.data)["folders"][0]["results"][0]["worst_loss"] is None


def test_pictures_are_written_beside_the_page_and_nowhere_else(tmp_path: Path):
    folders = [make_folder(tmp_path / name, seed=i) for i, name in enumerate(("first", "second"))]
    page = Page(write_report(folders, tmp_path / "r.html"))
    assert list(tmp_path.glob("*/plots")) == []
    assert Page(write_report(folders, folders[0] / "r.html")).all("img") == page.all("img")
    names = {"length.png", "attention.png", "bias.png", "training.png", "combined.png"}
    assert {path.name for path in (folders[0] / "plots").iterdir()} == names
    assert not (folders[1] / "plots").exists()
    for path in tmp_path.glob("*/plots/*.png"):
        assert path.read_bytes().startswith(PNG)


def test_a_baseline_is_shown_at_the_width_that_it_learned_and_judged_by_that(tmp_path: Path):
    run = make_run(tmp_path / "run", settings(), None)
    inside = score(VANILLA, 3, 200)
    rows = [
        dataclasses.replace(inside, padding="training", width=run.config.width),
        dataclasses.replace(inside, correct=0),
        score(VANILLA, 40, 0),
    ]
    LengthCurve(rows).save(run.path)
    page = Page(write_report([run.path], tmp_path / "r.html"))
    assert "No errors up to 3 digits." in page.headings[0]
    assert "vanilla, padded as trained" in page.text
    assert "but in the rows `padded as trained`, where a model is asked as it learned" in page.text


def test_several_folders_share_a_headline_and_have_sections(tmp_path: Path):
    folders = [
        make_folder(tmp_path / "first"),
        make_folder(tmp_path / "second", correct=100, seed=1),
    ]
    page = Page(write_report(folders, tmp_path / "r.html"))
    assert "fails on 100 of 400 uniform and 0 of 400 carry" in page.headings[0]
    assert "over 2 seeds" in page.headings[0]
    assert len(page.all("img")) == 9
    assert {"folder-1", "folder-2"} <= {h2["id"] for h2 in page.all("h2")}
    assert "second (seed 1)" in page.text
    assert "300 of 400" in page.text
    assert "differ in more than their seed" not in page.text


def test_differing_settings_are_told(tmp_path: Path):
    folders = [make_folder(tmp_path / "first"), make_folder(tmp_path / "second", seed=1)]
    config = settings(1).model_copy(update={"base": 10, "attention": "dense"})
    make_run(folders[1] / VANILLA, config, None)
    page = Page(write_report(folders, tmp_path / "r.html"))
    assert "differ in more than their seed: vanilla: attention." in page.text


def test_other_tasks_get_their_own_finding(tmp_path: Path):
    other = tmp_path / "other"
    config = make_config({**settings().model_dump(), "task": "successor"})
    make_run(other, config, None)
    LengthCurve([score(VANILLA, 3, 200, task="successor")]).save(other)
    page = Page(write_report([make_folder(tmp_path / "first"), other], tmp_path / "r.html"))
    assert page.headings == ["Results of 2 tasks or training lengths"]
    assert summary.headline(curve(), 3) in page.text
    assert "A vanilla model, trained on successor" in page.text
    assert len(page.all("img")) == 6
    assert not (tmp_path / "first" / "plots" / "combined.png").exists()


def test_plain_run_without_metrics_or_maps(tmp_path: Path):
    run = make_run(tmp_path / "run", settings(), None)
    (run.path / METRICS).unlink()
    (run.path / VERSIONS).unlink()
    LengthCurve([score(VANILLA, 40, 0)]).save(run.path)
    page = Page(write_report([run.path], run.path / "r.html"))
    assert "fails on 200 of 200 uniform problems of 40 digits" in page.headings[0]
    assert "no measurement yet" in page.text
    assert [path.name for path in (run.path / "plots").iterdir()] == ["length.png"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "results.json").unlink(), "holds no results"),
        (lambda folder: (folder / "results.json").write_text("[]"), "holds no scores"),
        (lambda folder: (folder / "results.json").write_text("[{}]"), "does not hold results"),
        (lambda folder: (folder / VANILLA / MAPS).write_text("x"), "does not hold attention maps"),
        (lambda folder: (folder / VANILLA / METRICS).write_text("{}\n"), "does not hold metrics"),
        (lambda folder: (folder / VANILLA / "versions.json").write_text("3"), "not hold versions"),
    ],
)
def test_broken_folders_are_refused_in_one_line_and_nothing_is_written(tmp_path, spoil, words):
    good, bad = make_folder(tmp_path / "good"), make_folder(tmp_path / "bad")
    spoil(bad)
    with pytest.raises(InputError, match=words) as caught:
        write_report([good, bad], tmp_path / "r.html")
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r.html").exists()
    assert not (good / "plots").exists()


def test_folders_that_are_no_runs_are_refused(folder: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"is not a run: it has no config\.json"):
        write_report([tmp_path / "empty"], tmp_path / "r.html")
    with pytest.raises(InputError, match="it does not exist"):
        write_report([tmp_path / "nowhere"], tmp_path / "r.html")
    with pytest.raises(InputError, match="at least one folder"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(InputError, match="is a folder; name the HTML file"):
        write_report([folder], tmp_path / "empty")


# --- the pictures


def test_length_curve_draws_a_line_for_each_method_and_suite():
    figure = plots.length_curve(curve() + curve(100, seed=1), trained=3)
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert set(lines) - {""} == {
        f"{m}, {s}" for m in (VANILLA, CALIBRATED) for s in ("uniform", "carry")
    }
    mean = lines["calibrated, uniform"]
    assert list(mean.get_xdata()) == [3, 40]
    assert list(mean.get_ydata()) == [1.0, 0.75]
    points = [tuple(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
    assert (1.0, 1.0, 1.0, 0.5) in points
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "3", "40"]
    words = [text.get_text() for text in axes.texts]
    assert set(lines) - {""} <= set(words)
    assert "trained on\n1 to 3 digits" in words
    assert any("mean of 2 seeds" in word for word in words)
    figure.draw_without_rendering()
    assert [tick.get_text() for tick in axes.get_yticklabels()][-1] == "100 %"


def test_length_curve_keeps_intervals_shading_and_tasks_apart():
    figure = plots.length_curve(LengthCurve([score(CALIBRATED, 40, 100)]))
    (axes,) = figure.axes
    assert not axes.patches
    low, high = axes.collections[0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx(wilson(100, 200))
    mixed = LengthCurve([score(CALIBRATED, 40, 100), score(CALIBRATED, 40, 9, task="successor")])
    words = {text.get_text() for text in plots.length_curve(mixed).axes[0].texts}
    assert {"addition calibrated, uniform", "successor calibrated, uniform"} <= words
    with pytest.raises(ValueError, match="without scores"):
        plots.length_curve(LengthCurve([]))


def test_length_curve_plot_writes_the_format_of_the_suffix(tmp_path: Path):
    assert curve().plot(tmp_path / "a.svg") == tmp_path / "a.svg"
    assert "<svg" in (tmp_path / "a.svg").read_text("utf-8")
    assert plots.length_curve(curve(), str(tmp_path / "a")) == tmp_path / "a"
    assert (tmp_path / "a").read_bytes().startswith(PNG)
    with pytest.raises(InputError, match=r"can't write .*a\.doc: pictures end in .*png"):
        plots.length_curve(curve(), tmp_path / "a.doc")
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "a"}


def test_attention_maps_name_rows_columns_and_problems(tmp_path: Path):
    maps = make_maps()
    figure = plots.attention_maps(maps)
    assert isinstance(figure, Figure)
    assert "averaged over 77 problems of 3 digits" in figure.get_suptitle()
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 2 * 2 * 2
    first_cross = panels[2]
    assert "layer 0\ncross-attention" in first_cross.get_ylabel()
    names = [tick.get_text() for tick in first_cross.get_xticklabels()]
    assert names == ["a3", "a2", "a1", "a0", "+", "b3", "b2", "b1", "b0"]
    assert [t.get_text() for t in first_cross.get_yticklabels()] == ["s0", "s1", "s2", "s3", "$"]
    assert [t.get_text() for t in panels[0].get_xticklabels()] == ["^", "s0", "s1", "s2", "s3"]
    drawn = np.asarray(panels[7].images[0].get_array())
    assert np.array_equal(drawn, maps.weights["cross"][1, 1].numpy())
    assert plots.attention_maps(maps, tmp_path / "a.png") == tmp_path / "a.png"


def test_pictures_of_a_decoder_say_what_is_read():
    """It has one attention, and no names for two."""
    maps, layout = dataclasses.replace(make_maps(), joint=True), Layout(TASKS["addition"](10), 4)
    for figure in (plots.attention_maps(maps), plots.bias_map(make_bias(), layout, joint=True)):
        assert isinstance(figure, Figure)
        panels = [axes for axes in figure.axes if axes.images]
        named = {axes.get_ylabel().split("\n")[1] for axes in panels if axes.get_ylabel()}
        assert named == {"reads the problem", "reads the answer"}


def test_bias_map_draws_open_cells_only():
    layout = Layout(TASKS["addition"](10), 4)
    figure = plots.bias_map(make_bias(), layout)
    assert isinstance(figure, Figure)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == len(figure.axes) == 4
    assert "every layer\nself-attention" in panels[0].get_ylabel()
    shown = ~np.ma.getmaskarray(panels[3].images[0].get_array())
    expected = make_bias().dense("cross", 0, layout, range(5))[1].isfinite().numpy()
    assert expected.sum() == 4
    assert np.array_equal(shown, expected)


def test_bias_map_draws_layers_that_differ_and_values():
    lines = [
        Line("a[c]", layer=0),
        Line("b[c]", layer=1, value=-0.5),
    ]
    figure = plots.bias_map(CalibratedBias("addition", 1, lines), Layout(TASKS["addition"](10), 4))
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_ylabel().split("\n")[0] for axes in panels] == ["layer 0"] * 2 + [
        "layer 1"
    ] * 2
    assert len(figure.axes) == 5
    assert plots.bias_map(CalibratedBias("addition", 1, []), Layout(TASKS["addition"](10), 4)).axes


def test_training_curves_draw_loss_and_exact_match():
    rows = [metrics(100), metrics(200)]
    figure = plots.training_curves({VANILLA: rows, CALIBRATED: rows[:1], "none": []})
    assert isinstance(figure, Figure)
    loss, right = figure.axes
    assert loss.get_yscale() == "log"
    assert list(loss.lines[0].get_xdata()) == [10.0, 20.0]
    assert list(loss.lines[0].get_ydata()) == [0.015, 0.0075]
    assert list(right.lines[0].get_ydata()) == [0.5, 1.0]
    for axes in (loss, right):
        assert {VANILLA, CALIBRATED} <= {text.get_text() for text in axes.texts}
    with pytest.raises(ValueError, match="at least one row"):
        plots.training_curves({"none": []})


@pytest.mark.parametrize("heights", [[0, 0, 1, 1], [0.5] * 4, [0.9, 0.95, 1.0], [0.2], [0.0] * 20])
def test_labels_are_spread_in_order(heights):
    moved = canvas.spread(heights, gap=0.07)
    assert all(b - a >= 0.07 - 1e-9 for a, b in itertools.pairwise(moved))
    assert min(moved) > -1e-9
    if len(heights) < 10:
        assert max(moved) <= 1


def test_only_the_report_imports_matplotlib_and_never_pyplot():
    found = set()
    root = Path(lengthwise.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(name.split(".")[0] == "matplotlib" for name in names):
                found.add(path.relative_to(root).as_posix())
            assert not any("pyplot" in name for name in names), path
    assert {name.split("/")[0] for name in found} == {"report"}


def test_parts_that_do_not_belong_together_are_refused(tiny_abc, binary, tmp_path):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    shutil.rmtree(folder / "calibrated")
    shutil.copytree(binary.path, folder / "calibrated")
    with pytest.raises(
        InputError, match="vanilla is of successor, base 10, seed 1, calibrated of add"
    ):
        write_report([folder], tmp_path / "page.html")
