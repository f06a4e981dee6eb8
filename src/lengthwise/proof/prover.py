"""The proof: the model's own forward pass, on every local context that the task allows."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lengthwise.bias import AttentionBias, CalibratedBias
from lengthwise.config import InputError
from lengthwise.layout import Layout
from lengthwise.model import Transformer, greedy_decode, plan_attention
from lengthwise.model.attention import LayerPlan, Path, as_type
from lengthwise.proof.certificate import Certificate, Counterexample, hashes
from lengthwise.proof.cone import NotApplicableError, receptive_cone
from lengthwise.proof.contexts import Batch, Contexts
from lengthwise.run import Run, versions
from lengthwise.tasks.sampling import in_split

BUDGET = 10_000_000

# Contexts of one forward pass.
_CHUNK = 8192

# Rounding is measured on this many contexts of each batch; what is measured counts so many times over.
_MEASURED = 64
_SAFETY = 16.0

# Failing problems kept for a further training.
_DRILL = 64


def prove(
    run: Run, *, budget: int = BUDGET, on_progress: Callable[[int, int], None] | None = None
) -> Certificate | Counterexample:
    """Prove that a calibrated model is right at every length, or find a problem that it gets wrong.

    An output depends on the symbols of its cone alone, and the task allows finitely many combinations of
    them. All are checked; docs/proof.md says why that is enough.

    Args:
        run: the run.
        budget: contexts that may be checked at most.
        on_progress: called with the contexts checked so far, and about how many there are.

    Raises:
        NotApplicableError: for a model that the proof can't speak about, or more contexts than the budget.
    """
    began = time.perf_counter()
    cone = receptive_cone(run.config, run.bias)
    contexts = Contexts(run.task, cone)
    bound = contexts.bound()
    if bound > budget:
        raise NotApplicableError(_too_many(run.bias, bound, budget))
    checker = _Checker(run)
    for batch in contexts:
        checker.check(batch)
        if on_progress is not None:
            on_progress(checker.contexts, bound)
    float_bound = _SAFETY * checker.rounding
    seconds = round(time.perf_counter() - began, 3)
    if checker.margin > 2 * float_bound:
        return Certificate(
            task=run.config.task,
            base=run.config.base,
            claim=_claim(run),
            cone=cone,
            contexts=checker.contexts,
            smallest_margin=checker.margin,
            tightest=(checker.expression(checker.tightest[0]), checker.tightest[1]),
            float_bound=float_bound,
            hashes=hashes(run),
            versions={key: versions()[key] for key in ("lengthwise", "torch", "python")},
            seconds=seconds,
        )
    return checker.counterexample(float_bound, seconds)


def _claim(run: Run) -> str:
    parameters = "".join(f" ({name} {value})" for name, value in run.config.parameters.items())
    return (
        f"greedy decoding answers every {run.config.task}{parameters} problem in base {run.config.base} "
        f"right, at every length"
    )


def _too_many(bias: AttentionBias, bound: int, budget: int) -> str:
    """How many, and which line makes the cone so large."""
    assert isinstance(bias, CalibratedBias)
    far = max(bias.lines, key=lambda line: (abs(line.offset), line.site == "self"))
    return (
        f"there are {bound:,} local contexts, more than the budget of {budget:,}; the line that reaches "
        f"farthest: head {far.head} reads {far.words()} ({far.site}-attention)"
    )


class _Checker:
    """Runs contexts through the model and keeps the worst."""

    def __init__(self, run: Run) -> None:
        self.run, self.model = run, run.model
        self.exact = copy.deepcopy(run.model).double()
        self.contexts, self.failing = 0, 0
        self.rounding = 0.0
        self.margin = float("inf")
        self.tightest: tuple[np.ndarray, int] = (np.zeros((0, 0), np.uint8), 0)
        self.shortest: tuple[np.ndarray, int] | None = None
        self.failed: dict[str, int] = {}

    @torch.inference_mode()
    def check(self, batch: Batch) -> None:
        """Check every context of a batch."""
        layout = self.run.config.layout(batch.width, self.run.task)
        for first in range(0, len(batch.operands), _CHUNK):
            operands = batch.operands[first : first + _CHUNK]
            source, target = (t.to(self.run.device) for t in layout.batch(operands))
            logits = self._logits(self.model, layout, source, target, batch.row)
            wanted = target[:, batch.row + 1]
            right = logits.gather(1, wanted[:, None])[:, 0]
            others = logits.scatter(1, wanted[:, None], float("-inf")).amax(dim=1)
            # A logit that is no number must count as wrong.
            margins = (right - others).nan_to_num(nan=float("-inf"))
            self.contexts += len(operands)
            self.failing += int((margins <= 0).sum())
            worst = int(margins.argmin())
            if margins[worst] < self.margin:
                self.margin = margins[worst].item()
                self.tightest = operands[worst], batch.row
            if margins[worst] <= 0 and (
                self.shortest is None or batch.width < self.shortest[0].shape[1]
            ):
                self.shortest = operands[worst], batch.row
            self._collect(operands[(margins <= 0).cpu().numpy()])
            if first == 0:
                chosen = margins.argsort()[:_MEASURED]
                self._measure(layout, source[chosen], target[chosen], batch.row, logits[chosen])

    def _collect(self, failed: np.ndarray) -> None:
        """Keep failing problems that a training may use, with their widths."""
        width = failed.shape[2]
        if len(failed) == 0 or width > self.run.config.width:
            return
        usable = failed[in_split(self.run.task, failed, "train")][:_DRILL]
        for operands in usable:
            self.failed.setdefault(self.expression(operands), width)

    def _logits(
        self,
        model: Transformer,
        layout: Layout,
        source: Tensor,
        target: Tensor,
        row: int,
        path: Path = "auto",
    ) -> Tensor:
        """Logits `[context, token]` of one row; later rows, which it can't see, are left out."""
        plan: list[LayerPlan] = plan_attention(
            self.run.bias,
            layout,
            len(model.layers),
            rows=range(row + 1),
            path=path,
            device=source.device,
        )
        plan = [{**layer, "self": layer["self"].narrow(row + 1)} for layer in plan]
        if model is self.exact:
            plan = [as_type(layer, torch.float64) for layer in plan]
        return model(source, target[:, : row + 1], plan).logits[:, row]

    def _measure(
        self, layout: Layout, source: Tensor, target: Tensor, row: int, logits: Tensor
    ) -> None:
        """How far rounding moves logits: every path, a batch of one, against double precision."""
        exact = self._logits(self.exact, layout, source, target, row)
        found = [logits]
        paths: tuple[Path, ...] = ("dense", "lines", "auto")
        for path in paths:
            found.append(self._logits(self.model, layout, source, target, row, path))
        found.append(
            torch.cat(
                [
                    self._logits(self.model, layout, source[i : i + 1], target[i : i + 1], row)
                    for i in range(min(4, len(source)))
                ]
            )
        )
        for one in found:
            moved = (one.double() - exact[: len(one)]).abs().max().item()
            self.rounding = max(self.rounding, moved if moved == moved else float("inf"))

    def expression(self, operands: np.ndarray) -> str:
        """The problem `[operand, column]` as text, padding of the answer left out."""
        growth = self.run.task.growth
        width = operands.shape[1]
        # As a person writes it, however the operands lie in the source.
        layout = Layout(self.run.task, width - growth)
        return layout.text(layout.source(operands[None, :, : width - growth])[0])

    def counterexample(self, float_bound: float, seconds: float) -> Counterexample:
        """The shortest failing problem, decoded."""
        operands, row = self.shortest or self.tightest
        layout = self.run.config.layout(operands.shape[1], self.run.task)
        source, target = layout.batch(operands[None])
        written = greedy_decode(
            self.model, self.run.bias, layout, source.to(self.run.device), self.run.config.attention
        ).cpu()
        wrong = (written != target[:, 1:])[0].nonzero()
        return Counterexample(
            task=self.run.config.task,
            base=self.run.config.base,
            problem=self.expression(operands),
            row=int(wrong[0]) if len(wrong) else row,
            expected=layout.text(target[0, 1:]),
            given=layout.text(written[0]),
            margin=self.margin,
            contexts=self.contexts,
            failing=self.failing,
            float_bound=float_bound,
            drill=tuple(sorted(self.failed, key=lambda text: self.failed[text])[:_DRILL]),
            seconds=seconds,
        )


def verify(
    certificate: Certificate,
    run: Run,
    *,
    budget: int = BUDGET,
    on_progress: Callable[[int, int], None] | None = None,
) -> Certificate | Counterexample:
    """Check a certificate against a run: the same weights, bias and model, proven again.

    Raises:
        InputError: when the certificate is of another run.
        NotApplicableError: as `prove`.
    """
    receptive_cone(run.config, run.bias)
    for name, value in hashes(run).items():
        if certificate.hashes.get(name) != value:
            raise InputError(f"the certificate is of other {name} than {run.path} holds")
    return prove(run, budget=budget, on_progress=on_progress)
