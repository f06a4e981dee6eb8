"""Softmax attention to few keys, as one function of autograd's.

A problem of a few digits makes matrices of some eight by eight, and what their products cost is calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def attend_few(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Read from all keys, each by the softmax of its score and its bias.

    Args:
        query: `[batch, head, query, channel]`.
        key, value: `[batch, head, key, channel]`.
        bias: `[(batch,) head, query, key]`; with one that learns, autograd sees every operation.

    Returns:
        As `query`.
    """
    learned = bias is not None and bias.requires_grad
    mixed = torch.is_autocast_enabled(query.device.type)  # each operation in a type of its own
    if not torch.is_grad_enabled() or learned or mixed or torch.compiler.is_compiling():
        return _attend(query, key, value, bias)[0]
    return _Attend.apply(query, key, value, bias)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What is read, and the shares of the keys `[batch, head, key, query]`."""
    # Keys before queries: softmax over a last axis this short is slow on the CPU.
    logits, scale = key @ query.mT, query.shape[-1] ** -0.5
    logits = logits.mul_(scale) if bias is None else torch.add(bias.mT, logits, alpha=scale)
    shares = logits.softmax(dim=-2)
    return shares.mT @ value, shares


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        read, shares = _attend(query, key, value, bias)
        ctx.save_for_backward(query, key, value, shares)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, shares = ctx.saved_tensors
        grad = grads[0].contiguous()
        of_logits = torch.ops.aten._softmax_backward_data(
            value @ grad.mT, shares, -2, shares.dtype
        ).mul_(query.shape[-1] ** -0.5)
        return of_logits.mT @ key, of_logits @ query, shares @ grad, None
