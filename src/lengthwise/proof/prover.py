"""The proof: the model on every local context that the task allows."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lengthwise.bias import CalibratedBias
from lengthwise.errors import shorten
from lengthwise.files import from_json, read_text, write_text
from lengthwise.locality import Batch, Cone, Contexts, NotApplicableError, look, write_out
from lengthwise.proof.certificate import Certificate, Counterexample, hashes
from lengthwise.proof.checker import CHUNK, Checker, Progress
from lengthwise.proof.rule import rule_text
from lengthwise.proof.scope import period_of, receptive_cone
from lengthwise.proof.shared import SHARE, check_shared, check_sights_shared
from lengthwise.proof.sheets import CHUNK as SIGHTS
from lengthwise.proof.sheets import check_sights, check_some, contexts_of_sheet, refute
from lengthwise.runs.folder import RULE
from lengthwise.runs.run import Run
from lengthwise.runs.versions import versions
from lengthwise.settings.config import InputError

BUDGET = 50_000_000

# What is measured of rounding counts so many times over.
_SAFETY = 16.0

# Seconds of work that an interruption may cost.
_SAVE_EVERY = 5.0


@dataclass(frozen=True)
class Estimate:
    """What a proof would take.

    Attributes:
        contexts: local contexts, at most.
        seconds: roughly, on this machine.
    """

    contexts: int
    seconds: float

    def __str__(self) -> str:
        return f"at most {self.contexts:,} local contexts, {_about(self.seconds)}"


def estimate(run: Run) -> Estimate:
    """How many contexts there are, and how long they would take: a few are tried.

    Raises:
        NotApplicableError: for a model that the proof can't speak about.
    """
    cone = receptive_cone(run.config, run.bias)
    if run.config.is_sheet:
        rule_text(run.task)  # refuses what is too large, before sights are enumerated
        sights, began = contexts_of_sheet(run, cone, BUDGET), time.perf_counter()
        some = len(check_some(run, sights, 0, share=True).margins)
        each = (time.perf_counter() - began) / some
        return Estimate(len(sights), len(sights) * each)
    contexts = Contexts(run.task, cone)
    checker = Checker(run)
    # Not some contexts over and over: those that agree are computed once.
    batch = next(iter(contexts))
    for one in contexts:
        batch = max(batch, one, key=lambda batch: len(batch.operands))
        if len(batch.operands) >= CHUNK:
            break
    few = batch.operands[: 4 * CHUNK]
    began = time.perf_counter()
    checker.check(Batch(few[:1], batch.row))
    each_batch = time.perf_counter() - began
    began = time.perf_counter()
    checker.check(Batch(few, batch.row))
    each = (time.perf_counter() - began) / len(few)
    bound = contexts.bound()
    return Estimate(bound, bound * each + contexts.stretches() * each_batch)


def prove(
    run: Run,
    *,
    budget: int = BUDGET,
    progress: Path | None = None,
    share: bool = True,
    workers: int = 1,
    on_progress: Progress | None = None,
) -> Certificate | Counterexample:
    """Prove that a calibrated model is right at every length, or find a problem that it gets wrong.

    An output depends on the symbols of its cone alone, and the task allows finitely many combinations of
    them. All are checked; docs/proof.md says why that is enough.

    Args:
        budget: contexts that may be checked at most.
        progress: a file that keeps how far the proof is, so that an interrupted one goes on from there; it
            is removed at the end. What it holds of another model, or of another version, is not used.
        share: compute what contexts have in common once (docs/proof.md); without it, only slower.
        workers: processes of this machine, of one thread each, that share the contexts; what is found is
            the same for any number of them (docs/scale.md).
        on_progress: called with the contexts checked so far, and about how many there are.

    Raises:
        NotApplicableError: for a model that the proof can't speak about, more contexts than the budget,
            or a rule too large to state.
        InputError: for a rule that is none (`tabulate`).
    """
    began = time.perf_counter()
    cone = receptive_cone(run.config, run.bias)
    rule = rule_text(run.task)
    if run.config.is_sheet:
        return _prove_sheet(run, cone, rule, budget, share, workers, on_progress)
    contexts = Contexts(run.task, cone)
    bound = contexts.bound()
    if bound > budget:
        raise NotApplicableError(_too_many(run, bound, budget))
    checker = Checker(run, share=share)
    kept = _Progress(progress, run, cone)
    done, before = kept.load(checker)
    saved = time.perf_counter()
    try:
        # Processes of which some would have nothing to do are not started.
        workers = min(workers, -(-bound // SHARE))
        with contextlib.closing(_checked(run, contexts, checker, done, workers)) as numbers:
            for number in numbers:
                now = time.perf_counter()
                kept.remember(number, before + now - began, checker)
                if now - saved > _SAVE_EVERY:
                    kept.save()
                    saved = now
                if on_progress is not None:
                    on_progress(checker.contexts, bound)
    except BaseException:
        kept.save()
        raise
    kept.remove()
    float_bound = _SAFETY * checker.rounding
    seconds = round(before + time.perf_counter() - began, 3)
    if checker.margin > 2 * float_bound:
        return Certificate(
            task=run.config.task,
            base=run.config.base,
            claim=_claim(run),
            cone=cone,
            contexts=checker.contexts,
            smallest_margin=checker.margin,
            tightest=(write_out(run.task, checker.tightest[0]), checker.tightest[1]),
            float_bound=float_bound,
            hashes=hashes(run),
            versions=_versions("lengthwise", "torch", "python"),
            seconds=seconds,
            seen=look(run.task, cone, *checker.tightest).seen,
            problems=run.config.format,
            rule=rule,
        )
    return checker.counterexample(cone, float_bound, seconds)


def _checked(
    run: Run, contexts: Contexts, checker: Checker, done: int, workers: int
) -> Generator[int]:
    """Check all batches after the first `done`; how many are, each time that there are more."""
    if workers > 1:
        yield from check_shared(run, checker.share, workers, done, checker)
        return
    for number, batch in enumerate(contexts, start=1):
        if number > done:
            checker.check(batch)
            yield number


def _prove_sheet(
    run: Run,
    cone: Cone,
    rule: str,
    budget: int,
    share: bool,
    workers: int,
    on_progress: Progress | None,
) -> Certificate | Counterexample:
    began = time.perf_counter()
    sights = contexts_of_sheet(run, cone, budget)
    workers = min(workers, -(-len(sights) // SIGHTS))
    if workers > 1:
        checked = check_sights_shared(run, sights, share, workers, on_progress)
    else:
        checked = check_sights(run, sights, share, on_progress)
    float_bound = _SAFETY * checked.rounding
    margin = float(checked.margins.min())
    if sights.unclear or margin <= 2 * float_bound:
        return refute(run, cone, sights, checked, float_bound, began)
    worst = int(checked.margins.argmin())
    return Certificate(
        task=run.config.task,
        base=run.config.base,
        claim=_claim(run),
        cone=cone,
        contexts=len(sights),
        smallest_margin=margin,
        tightest=("", worst),
        float_bound=float_bound,
        hashes=hashes(run),
        versions=_versions("lengthwise", "torch", "python"),
        seconds=round(time.perf_counter() - began, 3),
        seen=sights.words(worst),
        problems=run.config.format,
        rule=rule,
    )


def _versions(*names: str) -> dict[str, Any]:
    """Those of what a proof was made with."""
    ran = versions()  # which asks git
    return {name: ran[name] for name in names}


def _about(seconds: float) -> str:
    if seconds < 2:
        return "a moment"
    return f"about {seconds:.0f} s" if seconds < 600 else f"about {seconds / 60:.0f} minutes"


def _claim(run: Run) -> str:
    parameters = "".join(
        f" ({name} {shorten(' '.join(str(value).split()))})"
        for name, value in run.config.parameters.items()
    )
    size = "whatever its columns and rows" if run.config.is_sheet else "at every length"
    several = not run.config.is_sheet or len(run.task.bases) > 1
    base = f" in base {run.config.base}" if several else ""
    return (
        f"greedy decoding answers every {run.config.task}{parameters} problem{base} right, {size}"
    )


def _too_many(run: Run, bound: int, budget: int) -> str:
    """How many, which line makes the cone so large, and what the cone would be without it."""
    bias = run.bias
    period, found = period_of(run.config), []
    many = f"{bound:,} local contexts"
    if period > 1:
        many += f" (positions of period {period} make up to {period**2} of one)"
    begin = f"there are {many}, more than the budget of {budget:,}"
    end = f"with --budget {bound} it takes {_about(estimate(run).seconds)}"
    if not isinstance(bias, CalibratedBias):
        return f"{begin}; {end}. A narrower window (model.window), or fewer layers, makes fewer"
    for track in dict.fromkeys(line.track for line in bias.lines):
        rest = [line for line in bias.lines if line.track != track]
        thinner = CalibratedBias(bias.format, bias.heads, rest)
        contexts = Contexts(run.task, receptive_cone(run.config, thinner))
        found.append((contexts.bound(), contexts, track))
    without, contexts, track = min(found, key=lambda one: one[0])
    if without >= bound:
        return f"{begin}; {end}"
    enough = "would still tell" if contexts.suffice() else "would not tell"
    return (
        f"{begin}. The line that makes them so many: {track}, {track.words()} "
        f"({track.site}-attention). Without it there would be {without:,}, and the other lines {enough} "
        f"every symbol; {end}"
    )


class _Progress:
    """How far a proof is, in a small file bound to the model, the cone and the versions.

    It holds numbers and digits; nothing in it is executed, and `verify` does not use it.
    """

    def __init__(self, path: Path | None, run: Run, cone: Cone) -> None:
        self.path = path
        self.found: dict[str, Any] | None = None
        self.key: dict[str, Any] = {}
        if path is not None:
            key = {"format": "lengthwise-proof/1", "hashes": hashes(run), "cone": asdict(cone)}
            key["versions"] = _versions("lengthwise", "torch")
            self.key = json.loads(json.dumps(key))  # as it will be read

    def load(self, checker: Checker) -> tuple[int, float]:
        """Batches done and seconds spent before; what was found goes into the checker."""
        if self.path is None:
            return 0, 0.0
        try:
            values = from_json(read_text(self.path))
            if {name: values[name] for name in self.key} != self.key:
                return 0, 0.0
            batches, seconds = int(values["batches"]), float(values["seconds"])
            checker.restore(values["found"])
        except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError):
            return 0, 0.0  # cut off or written by something else: begin anew
        return batches, seconds

    def remember(self, batches: int, seconds: float, checker: Checker) -> None:
        """Take note of a finished batch."""
        if self.path is not None:
            self.found = {"batches": batches, "seconds": seconds, "found": checker.state()}

    def save(self) -> None:
        """Write what was noted; the file appears whole or not at all."""
        if self.path is not None and self.found is not None:
            write_text(self.path, json.dumps({**self.key, **self.found}) + "\n")

    def remove(self) -> None:
        """The proof is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def verify(
    certificate: Certificate,
    run: Run,
    *,
    budget: int = BUDGET,
    workers: int = 1,
    on_progress: Progress | None = None,
) -> Certificate | Counterexample:
    """Check a certificate against a run: the same weights, bias, rule and model, proven again.

    A certificate of an earlier version binds no rule; the new proof is then of the rule as it is now.

    Args:
        certificate, run: of each other.
        budget, workers, on_progress: as of `prove`.

    Raises:
        InputError: when the certificate is of another run or another rule, or says something else than is
            found; or when the run's `rule.json` is not that rule.
        NotApplicableError: as `prove`.
    """
    receptive_cone(run.config, run.bias)
    other = certificate.differs(run)
    if other == "rule":
        raise InputError(
            f"the certificate is of another rule than {run.config.task} has now: its steps, segments or "
            f"ends have changed"
        )
    if other is not None:
        raise InputError(f"the certificate is of other {other} than {run.path} holds")
    stated = run.path / RULE
    if stated.exists() and stated.read_bytes() != rule_text(run.task).encode():
        raise InputError(
            f"{stated} is another rule than {run.config.task} has now; `lengthwise prove {run.path}` "
            f"writes it again"
        )
    found = prove(run, budget=budget, workers=workers, on_progress=on_progress)
    if isinstance(found, Certificate):
        for name in ("task", "base", "claim", "cone", "contexts"):
            said, is_so = getattr(certificate, name), getattr(found, name)
            if said != is_so:
                raise InputError(f"the certificate says {name} {said}; proven is {is_so}")
        # Within what rounding may move two logits, here and there.
        apart = abs(certificate.smallest_margin - found.smallest_margin)
        if apart > 2 * (certificate.float_bound + found.float_bound):
            raise InputError(
                f"the certificate says a smallest margin of {certificate.smallest_margin:.4f}; found is "
                f"{found.smallest_margin:.4f}"
            )
    return found
