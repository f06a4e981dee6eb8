"""The loss of a batch: the bias laid out for its problems, the logits, and the drill of single queries."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lengthwise.bias import AttentionBias, CalibratedBias
from lengthwise.model import Transformer, plan_attention
from lengthwise.model.ahead import prepare
from lengthwise.model.plans import AttentionPlan, LayerPlan
from lengthwise.model.sheets import sheet_logits
from lengthwise.problems.layout import Layout
from lengthwise.problems.sheets import Seen, SheetLayout
from lengthwise.runs.parts import in_precision
from lengthwise.settings.config import Config, InputError
from lengthwise.training.drill import drill_sights

# How much what single queries see counts, beside the problems of a batch.
_SIGHTS = 1 / 8


class Loss:
    """Cross-entropy of problems of any width or size, read along one bias.

    Args:
        model: as its maker made it; the losses are of one that may be wrapped or compiled.
        device: where the tokens are.
    """

    def __init__(
        self, config: Config, bias: AttentionBias, model: Transformer, device: torch.device
    ) -> None:
        self.config, self.bias, self.device, self.model = config, bias, device, model
        # Lines of sheets lead elsewhere in each, so that they are laid out with a batch (`sheet_logits`).
        self._along_sheets = config.is_sheet and isinstance(bias, CalibratedBias)
        # By the lengths of source and target: one for each width or size of a batch.
        self._plans: dict[tuple[int, int], list[LayerPlan]] = {}
        self._sights = self._lay_out_sights()

    def plan_for(self, layout: Layout | SheetLayout, target: Tensor) -> list[LayerPlan]:
        """The bias laid out at one width, once; for sheets read along lines, none.

        Args:
            target: their target tokens `[problem, row + 1]`.
        """
        if self._along_sheets:
            return []
        key = layout.source_length, target.shape[1] - 1
        if key not in self._plans:
            try:
                self._plans[key] = plan_attention(
                    *(self.bias, layout, self.config.model.layers),
                    queries=range(key[1]),
                    path=self.config.attention,
                    device=self.device,
                    encoder=self.model.encodes,
                )
            except ValueError as error:
                raise InputError(
                    f"attention can't be {self.config.attention!r}: {error}"
                ) from error
            self._prepare(self._plans[key], *key)
        # Layouts of the same lengths share a plan, but tokens have places of their own in each.
        return AttentionPlan(self._plans[key], layout)

    def _prepare(self, plan: list[LayerPlan], source: int, rows: int) -> None:
        if self.config.training.execution == "compiled":
            prepare(self.model, plan, source, rows, self.device)

    def _lay_out_sights(self) -> tuple[Seen, Tensor, list[LayerPlan]] | None:
        """The drill of what single queries see, if there is one, and the bias laid out for it."""
        if not self._along_sheets:
            return None
        found = drill_sights(self.config, self.config.make_task())
        if found is None:
            return None
        seen, wanted = found
        layers = self.config.model.layers
        plan = plan_attention(self.bias, seen, layers, path="lines", device=self.device)
        self._prepare(plan, seen.source_length, seen.target_length)
        seen.source, seen.inputs = seen.source.to(self.device), seen.inputs.to(self.device)
        return seen, wanted.to(self.device), plan

    def logits(
        self,
        model: torch.nn.Module,
        layout: Layout | SheetLayout,
        source: Tensor,
        target: Tensor,
        plan: list[LayerPlan],
        drawn: Tensor | None = None,
    ) -> Tensor:
        """Logits `[problem, row, token]`, the right tokens being given."""
        if isinstance(layout, SheetLayout):
            layers = self.config.model.layers
            return sheet_logits(model, self.bias, layout, source, target, plan, layers, drawn)
        return model(source, target[:, :-1], plan, drawn=drawn).logits

    def of_problems(
        self, model: torch.nn.Module, layout: Layout | SheetLayout, plan: list[LayerPlan]
    ) -> Callable[..., Tensor]:
        """What gives the mean loss of problems of one layout, of source, target and drawn positions."""

        def mean_loss(source: Tensor, target: Tensor, drawn: Tensor | None = None) -> Tensor:
            with in_precision(self.config.training.precision, self.device):
                logits = self.logits(model, layout, source, target, plan, drawn)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), target[:, 1:].flatten())
            if self._sights is None:
                return loss
            seen, wanted, laid_out = self._sights
            own = model(seen.source, seen.inputs, laid_out, last=seen.count).logits[0]
            return loss + _SIGHTS * F.cross_entropy(own.float(), wanted)

        return mean_loss
