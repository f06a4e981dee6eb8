"""What a report says: sentences and table cells, derived from data by pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lengthwise.bias import CalibratedBias
from lengthwise.calibration import Evidence
from lengthwise.calibration.account import fate_of
from lengthwise.errors import shorten
from lengthwise.evaluation.curve import LengthCurve, Score
from lengthwise.problems.sizes import Size
from lengthwise.proof import Certificate
from lengthwise.runs.folder import CALIBRATED, VANILLA
from lengthwise.runs.metrics import Metrics
from lengthwise.settings.config import Config
from lengthwise.settings.methods import with_article

# The sign, kept on the line of its number by a space that does not break.
PERCENT = "\u00a0%"


def digits(count: int) -> str:
    """`1 digit`, `6 digits`."""
    return "1 digit" if count == 1 else f"{count} digits"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def percent(share: float) -> str:
    """A share with one decimal; only exactly none and all are `0 %` and `100 %`."""
    if share in (0, 1):
        return f"{share * 100:.0f}{PERCENT}"
    if 0 < share < 0.0005:
        return f"< 0.1{PERCENT}"
    return f"> 99.9{PERCENT}" if share > 0.9995 else f"{share * 100:.1f}{PERCENT}"


def interval(low: float, high: float) -> str:
    """An interval of shares; its lower end is rounded down, its upper end up."""
    low, high = math.floor(low * 1000) / 10, math.ceil(high * 1000) / 10
    return f"{low:.1f} to {high:.1f}{PERCENT}"


def main_method(curve: LengthCurve) -> str:
    """The method that a report is about: calibrated, where it was measured."""
    methods = [score.method for score in curve]
    return CALIBRATED if CALIBRATED in methods else methods[0]


def tally(scores: Iterable[Score], *, wrong: bool = False) -> str:
    """`200 of 200 uniform and 199 of 200 carry`: how many are right, or wrong, in each suite."""
    totals: dict[str, tuple[int, int]] = {}
    for score in scores:
        count, n = totals.get(score.suite, (0, 0))
        right = score.n - score.correct if wrong else score.correct
        totals[score.suite] = (count + right, n + score.n)
    return listed([f"{count} of {n} {suite}" for suite, (count, n) in totals.items()])


def sized(extent: tuple[int, int, int]) -> str:
    """Of a score's extent `6 digits`, of sheets `20 x 15 digits`."""
    _, length, rows = extent
    return f"{length} x {rows} digits" if rows else digits(length)


def _extent(trained: int | Size) -> tuple[int, int, int]:
    """That of problems, as `Score.extent`."""
    if isinstance(trained, Size):
        return trained.cells, trained.columns, trained.rows
    return trained, trained, 0


def headline(curve: LengthCurve, trained: int | Size) -> str:
    """One or two sentences that say what was achieved, and where it fails if it does.

    Args:
        curve: scores of one task; at least one.
        trained: digits that the models were trained on, at most; of sheets a size.
    """
    method = main_method(curve)
    scores = [score for score in curve if score.method == method]
    lengths = sorted({score.extent for score in scores})
    at = {n: [score for score in scores if score.extent == n] for n in lengths}
    failed = [n for n in lengths if any(s.correct < s.n for s in at[n])]
    longest, first = lengths[-1], scores[0]
    base = "" if first.base == 10 else f" in base {first.base}"
    seeds = len({score.seed for score in scores})
    over = f", over {seeds} seeds" if seeds > 1 else ""
    who = f"{with_article(method).capitalize()} model, trained on"
    text = "Trained on" if method == CALIBRATED else who
    most = _extent(trained)
    text += f" {first.task}{base} of at most {sized(most)}"
    if longest in failed:
        text += f", fails on {tally(at[longest], wrong=True)} problems of {sized(longest)}{over}."
        sound = [n for n in lengths if n < failed[0]]
        if sound:
            text += f" No errors up to {sized(sound[-1])}"
            text += f"; the first at {sized(failed[0])}." if failed[0] < longest else "."
        elif failed[0] < longest:
            wrong = tally(at[failed[0]], wrong=True)
            text += f" It fails at {sized(failed[0])} already: {wrong}."
    else:
        comma = ";" if method == CALIBRATED else ", is"
        text += f"{comma} right on {tally(at[longest])} problems of {sized(longest)}{over}"
        where = [f"{tally(at[n], wrong=True)} of {sized(n)}" for n in failed]
        text += f", but fails on {listed(where)}." if where else "."
    return text if longest[0] > most[0] else f"{text} No longer problems were measured."


def proven(certificates: Sequence[Certificate | None]) -> str | None:
    """The headline of what was proven: of all folders, of some, or None."""
    found = [certificate for certificate in certificates if certificate is not None]
    if not found:
        return None
    claim = found[0].claim[0].upper() + found[0].claim[1:]
    if len(found) == len(certificates):
        each = "" if len(found) == 1 else f" (each of {len(found)} models)"
        return f"Proven{each}: {claim}."
    return f"Proven for {len(found)} of {len(certificates)} models: {claim}."


def certificate_facts(certificate: Certificate) -> dict[str, str]:
    """What a certificate says: name to text."""
    problem, row = certificate.tightest
    reads, period = [str(track) for track in certificate.cone.reads], certificate.cone.period
    where = f"at row {row} of {shorten(problem)}" if problem else "of a query"
    coordinates = "(c is the column being written)"
    if not problem:
        coordinates = "and the token before (r and c are row and column of the cell being written)"
    phase = f"; column and width modulo {period}" if period > 1 else ""
    return {
        "Local contexts": f"{certificate.contexts:,}, all that the task allows",
        "Each sees": f"{listed(reads)} {coordinates}{phase}",
        "Smallest margin": f"{certificate.smallest_margin:.3f}, {where}"
        + (f", which sees {certificate.seen}" if certificate.seen else ""),
        "Rounding": f"at most {certificate.float_bound:.1e}",
        "Time": f"{certificate.seconds:.1f} s",
        "Weights, SHA-256": certificate.hashes["weights"],
        "Bias, SHA-256": certificate.hashes["bias"],
        **({"Rule, SHA-256": certificate.hashes["rule"]} if certificate.binds_rule else {}),
    }


def standing(curve: LengthCurve, *, proven: bool = False) -> list[str]:
    """What the headline leaves out: how sure it is, and how the other models do."""
    method = main_method(curve)
    longest = max(score.extent for score in curve if score.method == method)
    last = [s for s in curve if s.method == method and s.extent == longest]
    least = min(last, key=lambda score: score.low)
    sure = "The scores are samples" if proven else "These are samples, not a proof"
    low = math.floor(least.low * 1000) / 10
    out = [
        f"{sure}. At {sized(longest)} the 95{PERCENT} intervals of the share of right answers reach "
        f"down to {low:.1f}{PERCENT}."
    ]
    for name in dict.fromkeys(score.method for score in curve):
        others = [s for s in curve if s.method == name and s.extent == longest]
        if others and name != method:
            before = ", before calibration," if method == CALIBRATED and name == VANILLA else ""
            text = f"The {name} model{before} is right on {tally(others)} problems of "
            out.append(f"{text}{sized(longest)}.")
    # The hard suite of sheets has problems that are the same for every seed.
    if short := sorted({s.extent for s in curve if s.split == "any" and s.suite != "hard"}):
        out.append(
            f"No problem was kept for test at {listed([sized(n) for n in short])}: the scores "
            f"there may count problems that were trained on."
        )
    return out


def extrapolation(curve: LengthCurve, config: Config) -> list[str]:
    """Which length extrapolates, in numbers, from the widths that were trained and measured."""
    task = config.make_task()
    last = max(curve, key=lambda score: score.length)
    train, test = config.layout(), config.layout(last.width)
    value, token = last.length > config.data.length, test.source_length > train.source_length
    if not value:
        verdict = (
            "So only the token length extrapolates."
            if token
            else "So nothing extrapolates here: no problem longer than in training was measured."
        )
    elif token:
        verdict = "So both the value length and the token length extrapolate."
    else:
        verdict = (
            "So the value length extrapolates, but the token length does not: training was padded to at "
            "least this width."
        )
    padded = (
        f"L + {task.growth}, because answers can be {digits(task.growth)} longer than operands"
        if task.growth
        else "L, because an answer is no longer than its operands"
    )
    but = ""
    if any(score.padding == "training" for score in curve):
        but = (
            ", but in the rows `padded as trained`, where a model is asked as it learned to answer"
        )
    return [
        f"Training saw operands of at most {digits(config.data.length)}, padded to "
        f"{digits(config.width)}: {train.source_length} source tokens and {train.target_length} "
        f"target tokens in every problem.",
        f"A test problem has operands of exactly L digits and is padded to {padded}, "
        f"never to the training width{but}.",
        f"At the longest test, {digits(last.length)}, a problem is padded to {digits(last.width)}: "
        f"{test.source_length} source tokens and {test.target_length} target tokens. {verdict}",
    ]


def sheet_extrapolation(curve: LengthCurve, configs: Mapping[str, Config]) -> list[str]:
    """Which sizes of sheets were trained on, and which were measured.

    Args:
        configs: the settings of each method.
    """
    said = []
    for method, config in configs.items():
        layout = config.layout()
        said.append(
            f"The {method} model saw sheets of {sized(_extent(config.size))} in training: "
            f"{layout.source_length} source tokens, and {layout.target_length} of the sheet."
        )
    last = max(curve, key=lambda score: score.extent)
    cells = last.length * last.rows * len(next(iter(configs.values())).make_task().fields)
    return [
        *said,
        f"A sheet of the largest test, {sized(last.extent)}, has more than {cells:,} tokens; every one of "
        f"them is judged.",
    ]


@dataclass(frozen=True)
class Row:
    """One row of a results table.

    Attributes:
        heads: the cells that name the row.
        cells: the others; None where nothing was measured.
    """

    heads: tuple[str, ...]
    cells: tuple[str | None, ...]


def score_rows(curve: LengthCurve, methods: Sequence[str]) -> list[Row]:
    """Rows of length and suite; for each method the share, the count, the interval and digits/s."""
    found = {(s.extent, s.suite, s.method): s for s in curve}
    rows = []
    for extent, size in sorted({(score.extent, score.size) for score in curve}):
        for suite in dict.fromkeys(score.suite for score in curve):
            cells: list[str | None] = []
            for method in methods:
                s = found.get((extent, suite, method))
                if s is None:
                    cells += [None] * 4
                    continue
                rate = f"{s.digits_per_second:,.0f}"
                cells += [
                    percent(s.accuracy),
                    f"{s.correct} of {s.n}",
                    interval(s.low, s.high),
                    rate,
                ]
            if any(cells):
                rows.append(Row((size, suite), tuple(cells)))
    return rows


def combined_rows(curves: Sequence[LengthCurve]) -> list[Row]:
    """Rows of method, suite and length; for each curve a share, then their mean and the counts."""
    found = [{(s.method, s.suite, (s.extent, s.size)): s for s in curve} for curve in curves]
    keys = dict.fromkeys(key for scores in found for key in scores)
    methods = sorted({method for method, _, _ in keys}, key=lambda name: (name != CALIBRATED, name))
    suites = list(dict.fromkeys(suite for _, suite, _ in keys))
    rows = []
    for key in sorted(keys, key=lambda key: (methods.index(key[0]), suites.index(key[1]), key[2])):
        scores = [scores.get(key) for scores in found]
        known = [score for score in scores if score]
        mean = sum(score.accuracy for score in known) / len(known)
        total = f"{sum(s.correct for s in known)} of {sum(s.n for s in known)}"
        shares = [percent(score.accuracy) if score else None for score in scores]
        rows.append(Row((key[0], key[1], key[2][1]), (*shares, percent(mean), total)))
    return rows


def evidence_rows(evidence: Sequence[Evidence], bias: CalibratedBias | None) -> list[Row]:
    """Rows of site and track; what became of the track, support, need and strength."""
    rows = []
    for item in evidence:
        fate = fate_of(item, bias)
        numbers = (f"{item.support:.2f}", f"{item.need:.2f}", f"{item.strength:.1f}")
        numbers = tuple(n[1:] if n in ("-0.00", "-0.0") else n for n in numbers)
        rows.append(Row((item.track.site, item.track.words()), (fate, *numbers)))
    return rows


def _drilled(config: Config) -> str:
    """What a training must get right besides the problems that it draws."""
    single, whole = len(config.data.drilled_sights), len(config.data.drilled_problems)
    sees = "query sees" if single == 1 else "queries see"
    seen = f"what {single:,} single {sees}, which no problem is known to show"
    problems = f"{whole:,} problem{'s' * (whole != 1)}"
    return " and ".join([problems] * bool(whole) + [seen] * bool(single))


def training_facts(config: Config, metrics: Sequence[Metrics]) -> dict[str, str]:
    """What a training was and how it ended: name to text."""
    settings, last = config.training, metrics[-1] if metrics else None
    cooldown = f", after a cooldown of {settings.cooldown_steps} steps"
    facts = {
        "Seed": str(config.seed),
        "Problems": f"sheets of {sized(_extent(config.size))}"
        if config.is_sheet
        else f"1 to {config.data.length} digits, padded to {config.width}",
        **({"Drilled": _drilled(config)} if config.data.drill else {}),
        "Positions": config.model.positions,
        **({} if config.model.bias == "causal" else {"Bias": config.model.bias}),
        "Criterion": f"exact match of at least {percent(settings.exact_match)}, mean loss of at "
        f"most {settings.loss:g}, no symbol's loss above {settings.worst_loss:g}"
        + (cooldown if settings.cooldown_steps else ""),
    }
    if last is None:
        return {**facts, "Training": "no measurement yet"}
    sure = last.exact_match >= settings.exact_match and last.validation_loss <= settings.loss
    met = (
        "yes" if last.phase == "done" and sure and last.worst_loss <= settings.worst_loss else "no"
    )
    return {
        **facts,
        "Criterion reached": met,
        "Steps": f"{last.step} of at most {settings.max_steps}, of {settings.batch_size} problems",
        "Time": f"{last.seconds:.1f} s",
        "Exact match": percent(last.exact_match),
        "Validation loss": f"{last.validation_loss:.2g} nats per symbol; of the worst symbol "
        f"{last.worst_loss:.2g}",
    }
