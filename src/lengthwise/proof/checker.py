"""Contexts through the model: margins, the worst of them, and how far rounding moves logits."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lengthwise.decoding.greedy import greedy_decode
from lengthwise.locality import Batch, Cone, look, write_out
from lengthwise.model import Transformer, plan_attention
from lengthwise.model.attention import Path
from lengthwise.model.plans import LayerPlan
from lengthwise.problems.layout import Layout
from lengthwise.problems.sampling import in_split
from lengthwise.proof.certificate import Counterexample
from lengthwise.runs.run import Run

# Contexts of one forward pass: what it makes stays in the cache.
CHUNK = 8192

# Rounding is measured on this many contexts of each batch.
_MEASURED = 64

# Failing problems kept for a further training.
_DRILL = 64

# All ways to compute logits, in which rounding is measured: attention paths, and whether rows that read the
# same are computed once.
WAYS: tuple[tuple[Path, ...], tuple[bool, ...]] = ("dense", "lines", "auto"), (True, False)

# Is called with the contexts checked so far, and about how many there are.
Progress = Callable[[int, int], object]


def margins_of(logits: Tensor, wanted: Tensor) -> Tensor:
    """The lead of the right token's logit over the next, `[context]`, of logits `[context, token]`."""
    right = logits.gather(1, wanted[:, None])[:, 0]
    others = logits.scatter(1, wanted[:, None], float("-inf")).amax(dim=1)
    # A logit that is no number must count as wrong.
    return (right - others).nan_to_num(nan=float("-inf"))


def farthest(found: Iterable[Tensor], exact: Tensor) -> float:
    """How far logits `[context, token]`, of the first contexts, lie from those in double precision."""
    moved = [(one.double() - exact[: len(one)]).abs().max().item() for one in found]
    return max(one if one == one else float("inf") for one in moved)


def _problem(value: Any) -> tuple[np.ndarray, int]:
    return np.array(value[0], np.uint8), int(value[1])


# What a checker finds, and how it is read from JSON values.
_FOUND: dict[str, Callable[[Any], Any]] = {
    "contexts": int,
    "failing": int,
    "rounding": float,
    "margin": float,
    "tightest": _problem,
    "shortest": lambda value: None if value is None else _problem(value),
    "failed": lambda value: {str(text): int(width) for text, width in value.items()},
}


class Checker:
    """Runs contexts through the model and keeps the worst.

    Args:
        share: whether rows that read the same are computed once (`lengthwise.model.distinct`).

    Attributes:
        contexts, failing: contexts checked, and how many of them are answered wrong.
        rounding: how far the logits measured lie from those in double precision.
        margin: the least lead of a right token.
        tightest: the problem `[operand, column]` and the row with that lead.
        shortest: the same of the shortest problem with a wrong answer, if any.
        failed: failing problems that a training may use, with their widths.
    """

    def __init__(self, run: Run, *, share: bool = True) -> None:
        self.run, self.model = run, run.model
        self.exact = copy.deepcopy(run.model).double()
        self.share = share
        self._plans: dict[tuple[int, int, Path], list[LayerPlan]] = {}
        self.contexts, self.failing = 0, 0
        self.rounding = 0.0
        self.margin = float("inf")
        self.tightest: tuple[np.ndarray, int] = (np.zeros((0, 0), np.uint8), 0)
        self.shortest: tuple[np.ndarray, int] | None = None
        self.failed: dict[str, int] = {}

    def state(self) -> dict[str, Any]:
        """Everything found so far, as JSON values."""
        found = {name: getattr(self, name) for name in _FOUND}
        for name in ("tightest", "shortest"):
            if found[name] is not None:
                operands, row = found[name]
                found[name] = [operands.tolist(), row]
        return found

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`; one that is none changes nothing."""
        vars(self).update({name: read(state[name]) for name, read in _FOUND.items()})

    def add(self, state: dict[str, Any]) -> None:
        """What another checker has found in the batches that follow, as its `state`."""
        found = {name: read(state[name]) for name, read in _FOUND.items()}
        self.contexts += found["contexts"]
        self.failing += found["failing"]
        self.rounding = max(self.rounding, found["rounding"])
        if found["margin"] < self.margin:
            self.margin, self.tightest = found["margin"], found["tightest"]
        both = [one for one in (self.shortest, found["shortest"]) if one is not None]
        self.shortest = min(both, key=lambda one: one[0].shape[1], default=None)
        for text, width in found["failed"].items():
            self.failed.setdefault(text, width)

    @torch.inference_mode()
    def check(self, batch: Batch) -> None:
        """Check every context of a batch."""
        layout = self.run.config.layout(batch.width)
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        for first in range(0, len(batch.operands), CHUNK):
            operands = batch.operands[first : first + CHUNK]
            source, target = (t.to(self.run.device) for t in layout.batch(operands))
            logits = self.logits(self.model, source, target, layout, batch.row, share=self.share)
            wanted = target[:, batch.row + 1]
            margins = margins_of(logits, wanted)
            self._keep(operands, batch.row, margins)
            least = margins.topk(min(_MEASURED, len(margins)), largest=False)
            kept.append((least.values, least.indices + first, logits[least.indices]))
        margins, index, logits = (torch.cat(parts) for parts in zip(*kept, strict=True))
        least = margins.topk(min(_MEASURED, len(margins)), largest=False).indices
        problems = layout.batch(batch.operands[index[least].cpu().numpy()])
        source, target = (tokens.to(self.run.device) for tokens in problems)
        self._measure(layout, source, target, batch.row, logits[least])

    def _keep(self, operands: np.ndarray, row: int, margins: Tensor) -> None:
        """Count contexts, and keep the worst."""
        self.contexts += len(operands)
        worst = int(margins.argmin())
        least = margins[worst].item()
        if least < self.margin:
            self.margin, self.tightest = least, (operands[worst], row)
        if least > 0:
            return
        wrong = (margins <= 0).cpu().numpy()
        self.failing += int(wrong.sum())
        width = operands.shape[2]
        if self.shortest is None or width < self.shortest[0].shape[1]:
            self.shortest = operands[worst], row
        if width > self.run.config.width:
            return
        failed = operands[wrong]
        for problem in failed[in_split(self.run.task, failed, "train")][:_DRILL]:
            self.failed.setdefault(write_out(self.run.task, problem), width)

    @torch.inference_mode()
    def logits(
        self,
        model: Transformer,
        source: Tensor,
        target: Tensor,
        layout: Layout,
        row: int,
        path: Path = "auto",
        share: bool = True,
    ) -> Tensor:
        """Logits `[context, token]` of one row by the model's forward pass.

        Later rows, which it can't see, are left out. With `share`, rows that read the same are computed
        once wherever training would do so.
        """
        place = (layout.width, row, path)
        if place not in self._plans:
            self._plans[place] = plan_attention(
                self.run.bias,
                layout,
                len(model.layers),
                queries=range(row + 1),
                path=path,
                device=source.device,
            )
        # Where attention weights are asked for, every row is computed.
        output = model(
            source, target[:, : row + 1], self._plans[place], return_attention=not share, last=1
        )
        return output.logits[:, 0]

    def _measure(
        self, layout: Layout, source: Tensor, target: Tensor, row: int, logits: Tensor
    ) -> None:
        """How far rounding moves logits: those found, every path, a batch of one, against doubles."""
        problems = source, target, layout, row
        exact = self.logits(self.exact, *problems, "dense", share=False)
        found = [self.logits(self.model, *problems, *way) for way in itertools.product(*WAYS)]
        single = [
            self.logits(self.model, source[i : i + 1], target[i : i + 1], layout, row)
            for i in range(min(4, len(source)))
        ]
        self.rounding = max(self.rounding, farthest([logits, *found, torch.cat(single)], exact))

    def counterexample(self, cone: Cone, float_bound: float, seconds: float) -> Counterexample:
        """The shortest failing problem, decoded."""
        operands, row = self.shortest or self.tightest
        layout = self.run.config.layout(operands.shape[1])
        source, target = layout.batch(operands[None])
        written = greedy_decode(
            self.model, self.run.bias, layout, source.to(self.run.device), self.run.config.attention
        ).cpu()
        wrong = (written != target[:, 1:])[0].nonzero()
        row = int(wrong[0]) if len(wrong) else row
        return Counterexample(
            task=self.run.config.task,
            base=self.run.config.base,
            problem=write_out(self.run.task, operands),
            row=row,
            expected=layout.text(target[0, 1:]),
            given=layout.text(written[0]),
            margin=self.margin,
            contexts=self.contexts,
            failing=self.failing,
            float_bound=float_bound,
            drill=tuple(sorted(self.failed, key=lambda text: self.failed[text])[:_DRILL]),
            seconds=seconds,
            seen=look(self.run.task, cone, operands, row).seen,
        )
