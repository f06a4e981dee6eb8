"""Products with weights, by the faster of torch's two engines.

On the CPU torch multiplies float32 matrices by MKL. On processors that MKL doesn't know it leaves half of
the AVX-512 units idle (an AMD EPYC: 106 against 231 GFLOP/s, docs/log.md). oneDNN, which torch brings too,
does not; for float32 torch takes it in compiled code alone. Here large products take it wherever there is
AVX-512: float32 either way, summed in another order. `torch.backends.mkldnn.enabled = False` turns it off.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Below so many multiplications MKL is faster on any processor: a call of oneDNN takes 10 us more.
LARGE = 2**23

# oneDNN compiles a kernel for every shape, for half a millisecond and more. So that few are met, it is
# given rows in multiples of this alone.
ROWS = 32
FILLED = 512


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`.

    Args:
        x: `[..., in]`.
        weight: `[out, in]`.
        bias: `[out]`.
    """
    if not _takes_onednn(x, weight):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias) if torch.is_grad_enabled() else _product(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear`, by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def feed_forward(x: Tensor, expand: nn.Linear, contract: nn.Linear, residual: Tensor) -> Tensor:
    """`residual + contract(relu(expand(x)))`, the largest tensors of a layer written but once.

    Args:
        x: `[..., width]`.
        expand, contract: to the hidden channels and back.
        residual: as `x`.
    """
    parts = (x, expand.weight, expand.bias, contract.weight, contract.bias, residual)
    if not _takes_onednn(x, expand.weight):
        return residual + contract(F.relu(expand(x), inplace=True))
    if not torch.is_grad_enabled():
        return _feed_forward(*parts)[0]
    return _FeedForward.apply(*parts)


def filled(rows: int) -> int:
    """The number of rows to compute where so many differ: as many, or the next that oneDNN takes.

    In steps of twice `ROWS`, so that numbers that vary meet few shapes; and from `FILLED` on, for fewer
    are no large product in a model of the default size.
    """
    step = 2 * ROWS
    return -(-rows // step) * step if rows >= FILLED and _is_there() else rows


def _takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether a product is large enough, and of the type and on the processor that gain from it."""
    return (
        x.numel() * weight.shape[0] >= LARGE
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()  # the compiler chooses for itself
        and x.shape[:-1].numel() % ROWS == 0
        and x.dtype == weight.dtype == torch.float32
        and _is_there()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _is_there() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "")


def _feed_forward(
    x: Tensor, weight: Tensor, bias: Tensor, back: Tensor, back_bias: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    hidden = _product(x, weight, bias, "relu")
    added = torch.ops.mkldnn._linear_pointwise.binary(hidden, residual, back, back_bias, "add")
    return added, hidden


def _of_weight(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of a weight, from those of the rows `[..., out]` that it made of `x` `[..., in]`."""
    rows, columns = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
    # The smaller side first is faster.
    if rows.shape[1] < columns.shape[1]:
        return _product(rows.T, columns.T)
    return _product(columns.T, rows.T).T


def _of_bias(grad: Tensor) -> Tensor:
    return grad.reshape(-1, grad.shape[-1]).sum(dim=0)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.T) if of_x else None,
            _of_weight(x, grad) if of_weight else None,
            _of_bias(grad) if of_bias else None,
        )


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        added, hidden = _feed_forward(*parts)
        x, weight, _, back, *_ = parts
        ctx.save_for_backward(x, weight, hidden, back)
        return added

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight, hidden, back) = grads, ctx.saved_tensors
        inner = _product(grad, back.T)
        torch.ops.aten.threshold_backward.grad_input(inner, hidden, 0, grad_input=inner)
        return (
            _product(inner, weight.T),
            _of_weight(x, inner),
            _of_bias(inner),
            _of_weight(hidden, grad),
            _of_bias(grad),
            grad,
        )
