"""The second checker of sheets: it misses no query, its model is the model, and no planted fault passes.

The proven model is that of `samples/multiplication`, made by

    lengthwise abc multiplication --set model.width=48 --set model.feed_forward=192

Its rule.json, which is large, is written here.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import load_tool, rehash
from lengthwise.bias import CalibratedBias, Line, Track
from lengthwise.cli import entry
from lengthwise.locality.sheets import LAST_TOKEN, SheetContexts
from lengthwise.model.sheets import through_lines
from lengthwise.problems.sheet_sampling import training_sheets
from lengthwise.problems.sheets import SheetLayout, Sheets
from lengthwise.problems.sizes import Size
from lengthwise.proof import Certificate, hashes, rule_text, save_rule
from lengthwise.proof.sheets import check_sights
from lengthwise.runs.folder import BIAS, CERTIFICATE, CONFIG, RULE, WEIGHTS
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.tasks import Field, Segment, Worksheet, make_task
from lengthwise.tasks.near import CLOSED
from sheet_rules import Made

TOOLS = Path(__file__).parents[1] / "tools"
PROGRAM = TOOLS / "check_sheet.py"
CONTEXTS = 13_240


second = load_tool("check_sheet")


# --- what queries see ---


class Carries(Made):
    """A digit from those of a and b, and from two others of the sheet; a's zeros are written before it."""

    zeros: ClassVar = {"a": 2}
    follows = ("a[c]", "b[r]", "sheet[r-1,c].digit", "sheet[r,c-1].mark")

    @cached_property
    def fields(self):
        return Field("digit", 3), Field("mark", 2)

    def values(self, a, b, others):
        total = a + b + sum((k + 1) * n for k, n in enumerate(others) if isinstance(n, int))
        return total % 3, total // 2 % 2


class Wide(Carries):
    """It looks at three cells above, and two before."""

    zeros: ClassVar = {}
    follows = (
        *("a[c]", "b[r]", "sheet[r-1,c-1].digit", "sheet[r-1,c].digit", "sheet[r-1,c+1].digit"),
        *("sheet[r,c-1].digit", "sheet[r,c-2].mark"),
    )


class Ahead(Carries):
    """It looks at operands before and behind, and two cells further above."""

    follows = ("a[c]", "b[r]", "a[c+1]", "b[r-1]", "sheet[r-1,c+2].mark")

    def cell(self, *seen):
        a, b, further, above, mark = seen
        if b is None:
            return "$"
        if a is None:
            return ";"
        return (a + (further or 0) + 2 * (above or 0)) % 3, int(mark == 1) ^ b


class Shrinking(Worksheet):
    """Rows become shorter, by one of two separators; the last is a separator alone."""

    name = "shrinking"
    segments = (Segment("a", "operand"),)
    axes: ClassVar = {"a": "c"}
    separators = (";", ",")
    follows = ("a[c]", "sheet[r-1,c].digit", "sheet[r-1,c+1].digit")
    example = ("12", "3")

    @cached_property
    def fields(self):
        return (Field("digit", self.base),)

    def cell(self, *seen):
        a, above, aside = seen
        if above is None:
            return ";" if a is None else (a,)
        if isinstance(above, str):
            return "$"
        if isinstance(aside, str):
            return ",;"[above % 2]
        return ((above + (aside or 0)) % self.base,)

    def answer(self, rows):
        return [int(row[0, 0]) for row in rows if len(row)]


class Layout(SheetLayout):
    """With room for the rows of `Shrinking`, too."""

    @property
    def limits(self):
        return {**super().limits, "rows": sum(super().limits.values())}


def found_by_machine(task: Worksheet, lines: list[str]) -> set[tuple[int, ...]]:
    """What queries see on lines, with the last token and what to write; closed is -1."""
    rule = second.Rule(rule_text(task).encode())
    assert rule.total
    machine = second.Machine(rule, [rule.near(text, "a head") for text in lines])
    return set(map(tuple, machine.queries().tolist()))


def real(task: Worksheet, lines: list[str], most: Size) -> set[tuple[int, ...]]:
    """The same of all real sheets up to a size, each operand with all its digits."""
    found: set[tuple[int, ...]] = set()
    for columns, rows in itertools.product(range(1, most.columns + 1), range(1, most.rows + 1)):
        layout = Layout(task, size := Size(columns, rows))
        lengths = [size.of(task, segment.name) for segment in task.operands]
        every = itertools.product(range(task.base), repeat=sum(lengths))
        problems = np.array(list(every), np.uint8)
        operands = np.zeros((len(problems), len(lengths), size.longest), np.uint8)
        for place, digits in enumerate(np.split(problems, np.cumsum(lengths)[:-1], axis=1)):
            operands[:, place, : digits.shape[1]] = digits
        sheets = Sheets([(layout, *layout.batch(operands))])
        seen = sheets.seen([*map(Track.parse, lines), LAST_TOKEN]).astype(int)
        tokens = np.vstack([np.where(seen == CLOSED, -1, seen), sheets.wanted.numpy()])
        found.update(map(tuple, tokens.T[tokens[-1] >= 0].tolist()))
    return found


RULES = [
    *((Carries, 2), (Carries, 3), (Wide, 2), (Ahead, 2), (Shrinking, 2), (Shrinking, 3)),
]
MORE = [
    [],
    ["sheet[r,c-1].digit", "sheet[r,c].digit"],
    ["sheet[r-1,c].digit", "sheet[r-1,c-1].carry"],
    ["a[c+1]", "a[c-2]"],
    ["b[r-1]", "b[r+1]", "sheet[r,c-2].carry"],
]


@pytest.mark.trains
@pytest.mark.parametrize(("kind", "base"), RULES)
def test_no_query_of_a_rule_is_missed(kind, base):
    task = kind(base)
    met = real(task, list(task.follows), Size(4, 3) if base == 2 else Size(3, 2))
    assert len(met) > 20
    assert met <= found_by_machine(task, list(task.follows))


@pytest.mark.trains
@pytest.mark.parametrize("more", MORE, ids=" ".join)
@pytest.mark.parametrize("base", [2, 3])
def test_no_query_of_multiplication_is_missed(base, more):
    task = make_task("multiplication", base)
    lines = ["a[c]", "b[r]", "sheet[r-1,c+1].digit", *more]
    met = real(task, lines, Size(4, 4) if base == 2 else Size(3, 2))
    found = found_by_machine(task, lines)
    assert met <= found
    # And it has none that the other way, which knows less, has not.
    sights = SheetContexts(task, map(Track.parse, lines)).sights
    tokens = np.vstack([sights.tokens, sights.wanted]).astype(int)
    listed = set(map(tuple, np.where(tokens == CLOSED, -1, tokens).T.tolist()))
    assert found <= listed
    if not more:
        assert found == listed


def test_queries_of_small_bases_are_those_of_real_sheets():
    """No more than there are, too: all are met up to five digits of base 2 along each axis."""
    task = make_task("multiplication", 2)
    lines = ["a[c]", "b[r]", "sheet[r-1,c+1].digit"]
    assert real(task, lines, Size(5, 5)) == found_by_machine(task, lines)


def listed_by_prover(task: Worksheet, lines: list[str]) -> set[tuple[int, ...]]:
    """What `SheetContexts` has, as `found_by_machine` gives it."""
    sights = SheetContexts(task, map(Track.parse, lines)).sights
    assert not sights.unclear
    tokens = np.vstack([sights.tokens, sights.wanted]).astype(int)
    return set(map(tuple, np.where(tokens == CLOSED, -1, tokens).T.tolist()))


def drawn(task: Worksheet, lines: list[str], count: int) -> set[tuple[int, ...]]:
    """As `real`, of random problems of small sizes, with all that a task makes of them."""
    found: set[tuple[int, ...]] = set()
    rng = np.random.default_rng(0)
    for size in itertools.starmap(Size, itertools.product(range(1, 5), repeat=2)):
        layout = SheetLayout(task, size)
        operands = training_sheets(task, rng, count, size=size, large=0.3, split="any")
        sheets = Sheets([(layout, *layout.batch(operands))])
        seen = sheets.seen([*map(Track.parse, lines), LAST_TOKEN]).astype(int)
        tokens = np.vstack([np.where(seen == CLOSED, -1, seen), sheets.wanted.numpy()])
        found.update(map(tuple, tokens.T[tokens[-1] >= 0].tolist()))
    return found


# How many contexts each has.
TASKS = [
    ("multiplication", 2, {}, 68),
    ("multiplication", 3, {}, 228),
    ("division", 2, {}, 176),
    ("division", 3, {}, 542),
    ("sorting", 3, {}, 120),
    ("sorting", 10, {}, 1877),
    ("base_conversion", 10, {"to": 2}, 742),
    ("base_conversion", 10, {"to": 16}, 3756),
    ("cellular_automaton", 2, {"rule": 110}, 37),
    ("cellular_automaton", 2, {"rule": 30}, 48),
    ("cellular_automaton", 2, {"rule": 0}, 34),
    ("turing_machine", 2, {"machine": "busy_beaver"}, 232),
    ("turing_machine", 2, {"machine": "increment"}, 544),
]
LARGE = [
    ("multiplication", 10, {}, 14_340),
    ("division", 10, {}, 23_432),
    ("turing_machine", 2, {"machine": "universal"}, 6_343),
]


@pytest.mark.trains
@pytest.mark.parametrize(
    ("name", "base", "parameters", "count"),
    [*TASKS, *(pytest.param(*task, marks=pytest.mark.slow) for task in LARGE)],
)
def test_the_two_list_the_same_queries_of_every_task(name, base, parameters, count):
    task = make_task(name, base, **parameters)
    lines = [text for text in task.follows if text != "before"]
    met, found = drawn(task, lines, 60), found_by_machine(task, lines)
    assert len(met) > 20
    assert met <= found
    assert found == listed_by_prover(task, lines)
    assert len({query[:-1] for query in found}) == count


@pytest.mark.parametrize(
    ("name", "base", "lines"),
    [
        ("division", 2, ["a[s,c-1]", "b[c]"]),
        ("division", 3, ["a[s,c-1]", "sheet[r,c-1].doing"]),
        ("sorting", 3, ["keys[r-1,c]", "sheet[r-1,c].key"]),
        ("cellular_automaton", 2, ["generations[r]"]),
    ],
)
def test_so_they_do_along_some_lines_of_a_rule(name, base, lines):
    task = make_task(name, base)
    places = [second.Rule(rule_text(task).encode()).near(text, "a head") for text in lines]
    machine = second.Machine(second.Rule(rule_text(task).encode()), places)
    found = {tuple(query[:-1]) for query in machine.queries().tolist()}
    sights = SheetContexts(task, map(Track.parse, lines)).sights
    tokens = np.where(sights.tokens == CLOSED, -1, sights.tokens.astype(int))
    assert found == set(map(tuple, tokens.T.tolist()))


@pytest.mark.trains
@pytest.mark.parametrize(
    ("name", "base", "lines"),
    [
        ("division", 2, ["a[s+1,c-1]", "b[c+1]", "sheet[r-1,c].doing"]),
        ("division", 2, ["a[s-1,c-1]", "a[s,c-1]"]),
        ("division", 2, ["a[s-1,c-1]", "b[c-1]", "sheet[r-1,c+1].digit"]),
        ("sorting", 3, ["keys[r-1,c+1]", "keys[r-1,c-1]", "sheet[r-1,c-1].key"]),
        ("cellular_automaton", 2, ["cells[r-1,c+1]", "generations[r-1]", "generations[r+1]"]),
        ("turing_machine", 2, ["tape[r-1,c-1]", "tape[r-1,c+1]", "sheet[r-1,c].cell"]),
    ],
)
def test_no_query_along_other_lines_of_a_task_is_missed(name, base, lines):
    task = make_task(name, base)
    assert drawn(task, lines, 60) <= found_by_machine(task, lines)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("division", text) for text in ("a[s]", "a[r,c-1]", "a[s,c]", "b[r-1,c]", "b[s]")),
        *(("division", text) for text in ("before", "sheet[s-1,c].digit", "a[s,c-1].digit")),
        *(("sorting", text) for text in ("keys[c]", "keys[r,c]", "keys[r-1]", "keys", "*")),
    ],
)
def test_places_that_a_task_does_not_have_are_refused(name, text):
    rule = second.Rule(rule_text(make_task(name, 2)).encode())
    with pytest.raises(second.RefusedError, match="which is no token near a cell"):
        rule.near(text, "head 0")


# --- its model ---

HEADS = 2
KINDS = ["encoder-decoder", "decoder"]
PLACES = [
    *("a[c]", "a[c-1]", "b[r]", "b[r+1]", "*"),
    *("sheet[r-1,c+1].digit", "sheet[r-1,c].digit", "sheet[r,c-1].carry", "sheet[r,c].digit"),
]


# Of other tasks. From a first cell the last one here is the separator above, which is the last token, too.
OTHERS = [
    (
        "division",
        *("a[s,c-1]", "b[c]", "/", "sheet[r-1,c].digit", "sheet[r-1,c].doing"),
        *("sheet[r-1,c+3].doing", "sheet[r,c-1].doing"),
    ),
    (
        "sorting",
        *("keys[r-1,c]", "keys[r-1,c+1]", "sheet[r-1,c+1].key", "sheet[r-1,c+2].key"),
        *("sheet[r,c-1].carried", "sheet[r,c].key"),
    ),
    ("turing_machine", "tape[r-1,c]", "sheet[r-1,c+1].cell", "sheet[r,c-1].cell"),
    ("division", "sheet[r-1,c].digit", "sheet[r-1,c+2].doing"),
]


def random_run(
    path: Path,
    seed: int,
    apart: bool = False,
    task: str = "multiplication",
    places: Sequence[str] = PLACES,
    kind: str = "encoder-decoder",
) -> Run:
    """A run in base 3, or of a tape, whose every parameter and line is random.

    With `apart` no head reads both the last token and another token of the sheet.
    """
    rng = np.random.default_rng(seed)
    config = make_config(
        {
            "task": task,
            "base": 2 if task == "turing_machine" else 3,
            "device": "cpu",
            "model": {
                "kind": kind,
                "width": 8,
                "heads": HEADS,
                "layers": int(rng.integers(1, 3)),
                "feed_forward": 12,
                "positions": "none",
                "norm": str(rng.choice(["pre", "post"])),
                "embedding_scale": str(rng.choice(["none", "sqrt"])),
            },
        }
    )
    lines = []
    for text in rng.choice([*places, "last"], 7):
        track, head = Track.parse(str(text)), int(rng.integers(HEADS))
        if apart and track.site == "self":
            head = int(track == LAST_TOKEN)
        layers = [0] if text.startswith("sheet") else [None, *range(config.model.layers)]
        value = float(rng.choice([0.0, 1.5, -0.5]))
        lines.append(Line(track, head, layers[rng.integers(len(layers))], value))
    run = Run.create(path, config, CalibratedBias(task, HEADS, lines))
    torch.manual_seed(seed)
    model = make_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    run.save_model(model)
    save_rule(path, rule_text(run.task))
    return run


def second_model(run: Run):
    """The program's model of a run, without a certificate."""
    rule = second.Rule((run.path / RULE).read_bytes())
    config = json.loads((run.path / CONFIG).read_text())
    _, *lines = map(json.loads, (run.path / BIAS).read_text().splitlines())
    return second.Model(rule, config, second.load((run.path / WEIGHTS).read_bytes()), lines)


def logits_of(model, tracks: list[str], tokens: np.ndarray) -> np.ndarray:
    """The program's logits of what is seen along tracks, uint8 `[track, query]`."""
    numbers = np.where(tokens == CLOSED, -1, tokens.astype(int))
    nears = [model.rule.near(track, "a head") for track in tracks]
    seen = dict(zip(nears, numbers, strict=True))
    seen |= {
        second.Near(name): np.full(tokens.shape[1], number)
        for name, number in model.rule.symbols.items()
    }
    return model.logits(seen)


@pytest.mark.trains
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_its_logits_are_those_of_the_model_on_real_sheets(seed, kind, tmp_path):
    run = random_run(tmp_path / "run", seed, kind=kind)
    layout = SheetLayout(run.task, Size(2, 3))
    operands = np.random.default_rng(seed).integers(0, 3, (40, 2, 3)).astype(np.uint8)
    group = (layout, *layout.batch(operands))
    tracks = [*PLACES[:4], *PLACES[5:], "last"]
    seen = Sheets([group]).seen(list(map(Track.parse, tracks)))
    with torch.inference_mode():
        layers = len(run.model.layers)
        expected = through_lines(run.model, run.bias, [group], layers).numpy()
    found = logits_of(second_model(run), tracks, seen)
    assert np.abs(found - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.trains
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("places", OTHERS)
def test_so_they_are_of_other_tasks(places, seed, kind, tmp_path):
    name, *places = places
    run = random_run(tmp_path / "run", seed, task=name, places=places, kind=kind)
    rng = np.random.default_rng(seed)
    groups = []
    for size in (Size(1, 3), Size(3, 2)):
        layout = SheetLayout(run.task, size)
        operands = training_sheets(run.task, rng, 30, size=size, large=0.3, split="any")
        groups.append((layout, *layout.batch(operands)))
    tracks = [*(track for track in places if track != "/"), "last"]
    sheets = Sheets(groups)
    written = (sheets.wanted[0] >= 0).numpy()
    seen = sheets.seen(list(map(Track.parse, tracks)))
    with torch.inference_mode():
        layers = len(run.model.layers)
        expected = through_lines(run.model, run.bias, groups, layers).numpy()
    found = logits_of(second_model(run), tracks, seen)
    largest = max(1.0, np.abs(expected).max())
    assert np.abs(found - expected)[written].max() < 1e-4 * largest


@pytest.mark.trains
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_random_models_have_the_margins_that_the_prover_finds(seed, kind, tmp_path):
    run = random_run(tmp_path / "run", seed, apart=True, kind=kind)
    model = second_model(run)
    tracks = [track for track in (line.track for line in run.bias.lines) if track != LAST_TOKEN]
    sights = SheetContexts(run.task, dict.fromkeys(tracks)).sights
    checked = check_sights(run, sights)
    logits = logits_of(model, list(sights.tracks), sights.tokens)
    wanted = sights.wanted[:, None].astype(int)
    right = np.take_along_axis(logits, wanted, axis=1)[:, 0]
    np.put_along_axis(logits, wanted, -np.inf, axis=1)
    margins = right - logits.max(axis=1)
    assert margins == pytest.approx(checked.margins.numpy(), abs=1e-4 * np.abs(margins).max())


# --- certificates, and planted faults ---


@pytest.fixture
def call(capsys) -> Callable[..., tuple[int, str, str]]:
    """Run the program on some arguments: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = second.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def proven(multiplication, tmp_path) -> Run:
    """A copy of the sample, with its rule."""
    folder = shutil.copytree(multiplication.path, tmp_path / "run")
    save_rule(folder, rule_text(multiplication.task))
    return Run.open(folder)


def test_the_two_agree_on_the_sample(proven, call, capsys):
    certificate = Certificate.load(proven.path / CERTIFICATE)
    assert certificate.contexts == CONTEXTS
    assert entry.run(["verify", str(proven.path / CERTIFICATE), str(proven.path)]) == 0
    assert f"python tools/check_sheet.py {proven.path}" in capsys.readouterr().out
    code, out, err = call(proven.path, "--json")
    found = json.loads(out)
    assert (code, err, found["good"], found["failing"]) == (0, "", True, 0)
    assert found["contexts"] == CONTEXTS
    assert found["smallest_margin"] == pytest.approx(certificate.smallest_margin, abs=1e-3)


def test_the_program_runs_without_lengthwise_and_torch(proven):
    alone = (
        "import runpy, sys\n"
        "sys.modules.update(lengthwise=None, torch=None)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", alone, str(PROGRAM), str(proven.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Agrees: 13,240 contexts, smallest margin ")
    assert len(PROGRAM.read_text().splitlines()) <= 400


def test_the_other_program_names_this_one(proven, capsys):
    assert load_tool("check_certificate").main([str(proven.path)]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "check_sheet.py" in captured.err


def change_weight(run: Run) -> None:
    weights = load_file(run.path / WEIGHTS)
    weights["to_logits.weight"] *= 1.1
    save_file(weights, run.path / WEIGHTS)


def remove_line(run: Run) -> None:
    """The only line of b in the first head that has one is gone, with all others of b."""
    lines = [line for line in run.bias.lines if line.track.segment != "b"]
    CalibratedBias(run.bias.format, run.bias.heads, lines).save(run.path / BIAS)


def remove_last(run: Run) -> None:
    """A line is gone, and its place is read by other heads."""
    *lines, _ = run.bias.lines
    CalibratedBias(run.bias.format, run.bias.heads, lines).save(run.path / BIAS)


def change_table(run: Run) -> None:
    """7 * 8 with 2 above and 3 carried is 62 here."""
    change_row(run, ["7", "8", "2", "'3"], ["2", "'6"])


def remove_row(run: Run) -> None:
    """The table has a sight less."""
    change_row(run, ["7", "8", "2", "'3"], None)


def write_no_cell(run: Run) -> None:
    """The table has a field too few in one row."""
    change_row(run, ["7", "8", "2", "'3"], ["1"])


def remove_row_of_a_part(run: Run) -> None:
    """The table need not have all sights; it lacks one that a cell can have."""
    remove_row(run)
    make_partial(run)


def make_partial(run: Run) -> None:
    rule = json.loads((run.path / RULE).read_text())
    (run.path / RULE).write_text(json.dumps({**rule, "partial": True}))


def change_row(run: Run, sight: list[str], cell: list[str] | None) -> None:
    """Write another cell into a row of the table, or leave the row out."""
    rule = json.loads((run.path / RULE).read_text())
    place = [row[0] for row in rule["table"]].index(sight)
    assert rule["table"][place] == [sight, ["1", "'6"]]
    rule["table"][place : place + 1] = [] if cell is None else [[sight, cell]]
    (run.path / RULE).write_text(json.dumps(rule))


FAULTS = {
    change_weight: ("weights", "the smallest margin is"),
    remove_line: ("bias", "a query depends on other places than its cone"),
    remove_last: ("bias", "the smallest margin is"),
    change_table: ("rule", "contexts are answered wrong"),
    remove_row: ("rule", "rule.json does not write one cell for each sight"),
    remove_row_of_a_part: ("rule", "rule.json has no row for sights that a cell may have: 1"),
    write_no_cell: ("rule", "rule.json does not write one cell for each sight"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(proven, call, fault):
    fault(proven)
    code, out, err = call(proven.path)
    assert (code, err, out.count("\n")) == (1, "", 1)
    assert out.startswith(f"Differs: it is of other {FAULTS[fault][0]}")


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_with_hashes_to_match_is_noticed(proven, call, fault):
    fault(proven)
    rehash(proven)
    code, out, err = call(proven.path)
    assert (code, err, out.count("\n")) == (1, "", 1)
    assert out.startswith("Differs: ")
    assert FAULTS[fault][1] in out
    assert "it is of other" not in out


def test_a_part_of_a_table_is_enough_where_it_has_all_that_is_met(proven, call):
    change = json.loads((proven.path / RULE).read_text())
    # Where b has no digit nothing is carried: the sheet ends in that row's first column.
    change["table"] = [row for row in change["table"] if row[0] != ["7", None, "2", "'3"]]
    (proven.path / RULE).write_text(json.dumps(change))
    make_partial(proven)
    rehash(proven)
    assert call(proven.path)[0] == 0
    remove_row(proven)
    rehash(proven)
    code, out, err = call(proven.path)
    assert (code, err, out.count("\n")) == (1, "", 1)
    assert "rule.json has no row for sights that a cell may have: 1" in out


def test_a_part_without_its_first_cell_is_no_broken_file(proven, call):
    rule = json.loads((proven.path / RULE).read_text())
    (proven.path / RULE).write_text(json.dumps({**rule, "partial": True, "table": []}))
    rehash(proven)
    code, out, err = call(proven.path)
    assert (code, err, out.count("\n")) == (1, "", 1)
    assert "rule.json has no row for sights" in out


def test_other_settings_of_the_model_are_noticed(proven, call):
    config = json.loads((proven.path / CONFIG).read_text())
    config["model"]["norm"] = "post"
    (proven.path / CONFIG).write_text(json.dumps(config))
    assert call(proven.path)[:2] == (1, "Differs: it is of other model\n")


def test_the_usual_kind_of_model_may_be_named(proven, call):
    """Certificates hold the hashes of before there was another."""
    set_model(proven, kind="encoder-decoder")
    assert call(proven.path)[0] == 0


def change_weight_of_the_first_layer(run: Run) -> None:
    weights = load_file(run.path / WEIGHTS)
    weights["layers.0.contract.weight"] *= 1.1
    save_file(weights, run.path / WEIGHTS)


def move_line(run: Run) -> None:
    give_lines(run, *DECODER[1:], ("a[c-1]", 0, None))


def drop_line(run: Run) -> None:
    give_lines(run, *DECODER[1:])


# What a decoder reads: `a[c]` in both layers.
DECODER = (
    ("a[c]", 0, None),
    *(("b[r]", 1, None), ("sheet[r-1,c+1].digit", 1, 0), ("last", 0, 0), ("last", 0, 1)),
)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (change_weight_of_the_first_layer, "the smallest margin is"),
        (move_line, "a query depends on other places than its cone"),
        (drop_line, "a query depends on other places than its cone"),
    ],
)
def test_a_fault_in_a_decoder_is_noticed(tmp_path, call, fault, reason):
    """Of what the prover finds nothing else differs than that a random model is wrong."""
    run = random_run(tmp_path / "run", 0, kind="decoder")
    assert run.config.model.layers == 2
    run = give_lines(run, *DECODER)
    reads = list(dict.fromkeys(text for text, _, _ in DECODER if text != "last"))
    sights = SheetContexts(run.task, map(Track.parse, reads)).sights
    values = {
        "task": run.config.task,
        "base": run.config.base,
        "cone": {"reads": reads},
        "format": "lengthwise-certificate/3",
        "contexts": np.unique(sights.tokens, axis=1).shape[1],
        "smallest_margin": float(check_sights(run, sights).margins.min()),
        "float_bound": 0.0,
        "hashes": hashes(run),
    }
    (run.path / CERTIFICATE).write_text(json.dumps(values))
    says = call(run.path)[1]
    assert re.fullmatch(
        r"Differs: \d+ contexts are answered wrong; a margin of \S+ is what rounding may move\n",
        says,
    )
    fault(run)
    assert call(run.path)[1].startswith("Differs: it is of other ")
    rehash(run)
    assert reason in call(run.path)[1]


MEASURED: list[tuple[int, int, float]] = []


def measured(folder: Path, measure=second.measure) -> tuple[int, int, float]:
    """What the program finds of the sample."""
    if not MEASURED:
        _, _, rule, model = second.open_run(folder)
        MEASURED.append(measure(rule, model))
    return MEASURED[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"contexts": CONTEXTS - 1}, "13,240 contexts are found, not 13,239"),
        ({"contexts": CONTEXTS + 1}, "13,240 contexts are found, not 13,241"),
        ({"smallest_margin": 1.8}, "the smallest margin is 1.892"),
        ({"float_bound": 1.0}, "is what rounding may move"),
        ({"cone": {"reads": ["a[c]", "b[r]"]}}, "a query depends on other places than its cone"),
        ({"base": 9}, "it is no lengthwise-certificate/3 of multiplication in base 10"),
        ({"format": "lengthwise-certificate/2"}, "it is no lengthwise-certificate/3"),
    ],
)
def test_another_claim_is_noticed(proven, call, monkeypatch, change, reason):
    # What is found does not depend on what is claimed: it is found once.
    monkeypatch.setattr(second, "measure", lambda rule, model: measured(proven.path))
    path = proven.path / CERTIFICATE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, out, err = call(proven.path)
    assert (code, err, out.count("\n")) == (1, "", 1)
    assert reason in out


def test_weights_that_are_no_numbers_are_noticed(proven, call):
    weights = load_file(proven.path / WEIGHTS)
    weights["to_logits.bias"][0] = torch.nan
    save_file(weights, proven.path / WEIGHTS)
    rehash(proven)
    code, out, _ = call(proven.path, "--json")
    assert (code, json.loads(out)["smallest_margin"]) == (1, None)


def set_model(run: Run, **values: object) -> None:
    config = json.loads((run.path / CONFIG).read_text())
    config["model"] |= values
    (run.path / CONFIG).write_text(json.dumps(config))


def give_lines(run: Run, *lines: tuple[str, int, int | None]) -> Run:
    bias = CalibratedBias(run.bias.format, run.bias.heads, itertools.starmap(Line, lines))
    bias.save(run.path / BIAS)
    return Run(run.path, run.config, bias)


def give_line(run: Run, text: str, layer: int | None = 0) -> None:
    CalibratedBias(run.bias.format, run.bias.heads, [Line(text, 0, layer)]).save(run.path / BIAS)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda run: set_model(run, positions="sinusoidal"),
            "models of the settings {'positions': ['none']",
        ),
        (lambda run: set_model(run, encoder_layers=1), "'encoder_layers': [0]"),
        (lambda run: set_model(run, kind="encoder"), "'kind': ['encoder-decoder', 'decoder']"),
        (
            lambda run: give_line(run, "sheet[r-2,c].digit"),
            "head 0 reads sheet[r-2,c].digit, which",
        ),
        (lambda run: give_line(run, "sheet[r-1,c].digit", None), "is read past the first layer"),
        (lambda run: (run.path / RULE).unlink(), "No such file"),
        (lambda run: (run.path / CERTIFICATE).write_text("{"), " is broken: "),
        (lambda run: (run.path / CERTIFICATE).write_text("[" * 10**5), " is broken: "),
        (lambda run: (run.path / WEIGHTS).write_text("no weights"), " is broken: "),
        (lambda run: (run.path / RULE).write_text('{"format": 1}'), "check_certificate.py"),
    ],
)
def test_what_it_does_not_know_it_refuses_by_name(proven, call, spoil, reason):
    spoil(proven)
    code, out, err = call(proven.path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err
