"""The proof of sheets: the model on everything that a query can see (docs/proof.md, "Sheets")."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lengthwise.bias import CalibratedBias, Track
from lengthwise.decoding.sheets import decode_sheets, make_sight_table
from lengthwise.locality import Cone, NotApplicableError
from lengthwise.locality.sheets import Sights, contexts_along
from lengthwise.model import Transformer
from lengthwise.model.attention import Path
from lengthwise.model.sheets import logits_of_sights
from lengthwise.problems.sampling import generator
from lengthwise.problems.sheet_sampling import admit, of_split, training_sheets
from lengthwise.problems.sheets import Seen, Sheets
from lengthwise.problems.sizes import Size
from lengthwise.problems.worked import texts_of
from lengthwise.proof.certificate import Counterexample
from lengthwise.proof.checker import WAYS, Progress, farthest, margins_of
from lengthwise.runs.run import Run
from lengthwise.tasks import Worksheet
from lengthwise.tasks.near import SHEET

# Sights of one forward pass; of each those with the smallest margins are measured again.
CHUNK, _MEASURED = 8192, 64

# Failing problems kept for a further training; problems that are searched for them, in so many rounds.
_DRILL, _SEARCHED, _ROUNDS = 512, 2000, 60


@dataclass
class Checked:
    """What the model makes of all sights.

    Attributes:
        margins: the lead of the right token in each, float32 `[sight]`.
        given: the token that it writes, int64 `[sight]`.
        rounding: how far the logits measured lie from those in double precision.
    """

    margins: Tensor
    given: Tensor
    rounding: float

    @classmethod
    def joined(cls, parts: Iterable[Checked], count: int, on_progress: Progress | None) -> Checked:
        """What is made of `count` sights, from that of some and of those that follow them."""
        found, done = [], 0
        for part in parts:
            found.append(part)
            done += len(part.margins)
            if on_progress is not None:
                on_progress(done, count)
        return cls(
            torch.cat([part.margins for part in found]),
            torch.cat([part.given for part in found]),
            max(part.rounding for part in found),
        )


def check_sights(
    run: Run, sights: Sights, share: bool = True, on_progress: Progress | None = None
) -> Checked:
    """Run all sights through a run's model."""
    parts = (check_some(run, sights, first, share) for first in range(0, len(sights), CHUNK))
    return Checked.joined(parts, len(sights), on_progress)


@torch.inference_mode()
def check_some(run: Run, sights: Sights, first: int, share: bool) -> Checked:
    """Run a chunk of sights, from `first` on, through a run's model."""
    model, bias = run.model, run.bias
    assert isinstance(bias, CalibratedBias)

    def ask(of: Transformer, tokens: np.ndarray, path: Path, share: bool) -> Tensor:
        seen = Seen(sights.task, sights.tracks, tokens)
        return logits_of_sights(of, bias, seen, path, share, run.device).cpu()

    tokens = sights.tokens[:, first : first + CHUNK]
    wanted = torch.from_numpy(sights.wanted[first : first + CHUNK].astype(np.int64))
    logits = ask(model, tokens, "lines", share)
    margins = margins_of(logits, wanted)
    least = margins.topk(min(_MEASURED, len(margins)), largest=False).indices
    few = tokens[:, least.numpy()]
    exact = copy.deepcopy(model).double()
    truth = ask(exact, few, "lines", False)
    found = [ask(model, few, path, together) for path, together in itertools.product(*WAYS)]
    rounding = farthest([logits[least], *found], truth)
    return Checked(margins, logits.argmax(dim=1), rounding)


def contexts_of_sheet(run: Run, cone: Cone, budget: int) -> Sights:
    """All sights of a run's cone.

    Raises:
        NotApplicableError: for more than the budget.
    """
    contexts = contexts_along(run.task, cone.reads)
    if len(contexts) > budget:
        raise NotApplicableError(
            f"there are {len(contexts):,} local contexts, more than the budget of {budget:,}"
        )
    return contexts.sights


def refute(
    run: Run, cone: Cone, sights: Sights, checked: Checked, float_bound: float, began: float
) -> Counterexample:
    """The smallest problem found that the model gets wrong, decoded; or why none is known.

    Problems with the digits of failing sights are tried, up to the training size: those that show one.
    """
    failing = np.flatnonzero((checked.margins <= 2 * float_bound).numpy())
    unclear = np.array(sorted(sights.unclear), np.int64)
    failing = np.union1d(failing, unclear).astype(np.int64)
    task: Worksheet = run.task
    assert isinstance(run.bias, CalibratedBias)
    found, missing = _search(run, sights, failing)
    worst = int(checked.margins.argmin())
    problem = expected = given = ""
    row, seen = 0, _account(sights, checked, worst, float_bound)
    table = make_sight_table(run.model, run.bias, task, run.device)
    for operands, size in found:
        layout = run.config.layout(size)
        source, target = layout.batch(operands[None])
        written = decode_sheets(
            run.model, run.bias, layout, operands[None], device=run.device, table=table
        )
        tokens, wanted = written.tokens(0), target[0, 1:].numpy()
        if len(tokens) == len(wanted) and bool((tokens == wanted).all()):
            continue
        problem = task.expression(texts_of(task, operands, size))
        same = np.flatnonzero(tokens[: len(wanted)] != wanted[: len(tokens)])
        row = int(same[0]) if len(same) else min(len(tokens), len(wanted))
        expected = layout.text(target[0, 1:])
        given = layout.text(torch.from_numpy(tokens.astype(np.int64)))
        tracks = [Track.parse(text) for text in sights.tracks]
        shown = Sheets([(layout, source, target)]).seen(tracks)[:, row : row + 1]
        seen = Sights(task, sights.tracks, shown, sights.wanted[:1], {}).words(0)
        break
    drill = [
        task.expression(texts_of(task, operands, size))
        for operands, size in found
        if of_split(task, operands[None], size, "train")[0]
    ]
    # What no problem was found to show is trained on as it is seen, and all of its kind with it: the next
    # model would be as free to get another of them wrong.
    hidden = missing - sights.unclear.keys()
    if hidden:
        shown_by_none = _search(run, sights, np.arange(len(sights)))[1] - sights.unclear.keys()
        others = sorted(shown_by_none - hidden, key=lambda case: float(checked.margins[case]))
        drill += [sights.record(case) for case in [*sorted(hidden), *others]]
    return Counterexample(
        task=run.config.task,
        base=run.config.base,
        problem=problem,
        row=row,
        expected=expected,
        given=given,
        margin=float(checked.margins[worst]),
        contexts=len(sights),
        failing=len(failing),
        float_bound=float_bound,
        drill=tuple(dict.fromkeys(drill))[:_DRILL],
        seconds=round(time.perf_counter() - began, 3),
        seen=seen,
    )


def _account(sights: Sights, checked: Checked, worst: int, float_bound: float) -> str:
    """What is wrong with the worst sight, or with one that does not tell what must be written."""
    texts = sights.task.tokens
    if float(checked.margins[worst]) > 2 * float_bound:
        case, wanted = next(iter(sights.unclear.items()))
        either = " or ".join(texts[token] for token in wanted)
        return f"{sights.words(case)}, and must write {either}"
    right, given = texts[sights.wanted[worst]], texts[int(checked.given[worst])]
    if right == given:
        lead = float(checked.margins[worst])
        seen = f"{sights.words(worst)}, where {right} leads by {lead:.1e}"
        return f"{seen}; rounding may move {float_bound:.1e}"
    return f"{sights.words(worst)}: it should write {right}, and writes {given}"


def _search(
    run: Run, sights: Sights, failing: np.ndarray
) -> tuple[list[tuple[np.ndarray, Size]], set[int]]:
    """Problems that show failing sights, the smallest first, until each is shown or rounds are over; and
    the sights that none was found to show."""
    task: Worksheet = run.task
    if not len(failing):
        return [], set()
    most, rng = run.config.size, generator(run.config.seed, "capture", 1)
    tracks = [Track.parse(text) for text in sights.tracks]
    # Where digits are seen: in operands, and of those that are a first row in cells, too.
    copied = any(task.axis(segment.name).edge == "r" for segment in task.operands)
    shown = [track.segment in task.axes or (copied and track.segment == SHEET) for track in tracks]
    first = np.array([[task.first_digit(segment.name)] for segment in task.operands])
    values = np.array([[len(task.texts(segment.name))] for segment in task.operands])
    asked = {
        code: int(case)
        for code, case in zip(_codes(sights.tokens[:, failing]), failing, strict=True)
    }
    missing, found = set(asked.values()), []
    sizes = [Size(c, r) for c in range(1, most.columns + 1) for r in range(1, most.rows + 1)]
    sizes.sort(key=lambda size: size.columns * size.rows)
    for turn in range(_ROUNDS):
        size = sizes[turn] if turn < len(sizes) else most
        operands = training_sheets(task, rng, _SEARCHED, size=size, large=0.5, split="any")
        # In most places digits of a failing sight, one of them for each problem.
        cases = rng.choice(sorted(missing), _SEARCHED)
        digits = sights.tokens[:, cases][shown].T.astype(np.int64)
        if digits.shape[1]:
            pick = rng.integers(0, digits.shape[1], operands.shape)
            drawn = np.take_along_axis(digits[:, None].repeat(operands.shape[1], 1), pick, axis=2)
            drawn -= first
            places = (rng.random(operands.shape) < 0.6) & (drawn >= 0) & (drawn < values)
            operands = np.where(places, drawn, operands).astype(np.uint8)
        layout = run.config.layout(size)
        operands = admit(task, rng, operands, size)
        sheets = Sheets([(layout, *layout.batch(operands))])
        codes = _codes(sheets.seen(tracks))
        shows = np.flatnonzero(
            np.isin(codes, np.array([c for c, n in asked.items() if n in missing]))
        )
        for query in shows.tolist():
            case = asked[int(codes[query])]
            if case in missing:
                missing.remove(case)
                found.append((operands[int(sheets.problem[query])], size))
        # A sight that does not tell what must be written is answered right on some sheets.
        if turn + 1 < len(sizes):
            missing |= sights.unclear.keys() & set(asked.values())
        if not missing:
            break
    return found, missing


def _codes(tokens: np.ndarray) -> np.ndarray:
    """One number for each column of tokens, int64 `[column]`; of more than seven tokens a hash."""
    code = np.zeros(tokens.shape[1], np.int64)
    for row in tokens.astype(np.int64):
        code = code * 257 + row
    return code
