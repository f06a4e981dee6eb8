"""Softmax attention to few keys, as one function of autograd's.

A problem of a few digits makes matrices of some eight by eight: what their products cost is calls and
copies. Here each tensor is laid out once, forward and backward.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def attend_few(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, term: Tensor | None = None
) -> Tensor:
    """Read from all keys, each by the softmax of its score, its bias and its term.

    Args:
        query: `[batch, head, query, channel]`.
        key, value: `[batch, head, key, channel]`.
        bias: `[head, query, key]`, without a gradient.
        term: `[(batch,) head, query, key]`.

    Returns:
        As `query`.
    """
    mixed = torch.is_autocast_enabled(query.device.type)  # each operation in a type of its own
    if term is None and not mixed and not torch.compiler.is_compiling():
        if torch.is_grad_enabled():
            return _Attend.apply(query, key, value, bias)
        return _attend(query, key, value, bias)[0]
    # Keys before queries: softmax over a last axis this short is slow on the CPU.
    logits = key @ (query / math.sqrt(query.shape[-1])).transpose(-1, -2)
    for added in (bias, term):
        if added is not None:
            logits = logits + added.transpose(-1, -2)
    return logits.softmax(dim=-2).transpose(-1, -2) @ value


def _product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Scaled products of matrices, in one call."""
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=scale)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What is read, and what its gradients need: all with batch and heads as one axis."""
    batch, heads, rows, channels = query.shape
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    logits = _product(key, query.transpose(1, 2), 1 / math.sqrt(channels))
    if bias is not None:
        logits.view(batch, heads, -1, rows).add_(bias.transpose(1, 2))
    shares = logits.softmax(dim=1)
    read = torch.bmm(shares.transpose(1, 2), value).view(batch, heads, rows, channels)
    # In the order in which heads are joined.
    return read.transpose(1, 2).contiguous().transpose(1, 2), (query, key, value, shares)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Any) -> Tensor:
        read, kept = _attend(*parts)
        ctx.save_for_backward(*kept)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, shares = ctx.saved_tensors
        split = grads[0].shape[:2]
        grad, scale = grads[0].flatten(0, 1), 1 / math.sqrt(query.shape[-1])
        of_shares = torch.bmm(value, grad.transpose(1, 2))
        of_logits = torch.ops.aten._softmax_backward_data(of_shares, shares, 1, shares.dtype)
        found = (
            _product(of_logits.transpose(1, 2), key, scale),
            _product(of_logits, query, scale),
            torch.bmm(shares, grad),
        )
        return *(x.unflatten(0, split) for x in found), None
