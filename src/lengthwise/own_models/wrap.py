"""Which adapter fits a model: by the library that its class comes from, or by what it offers."""

from __future__ import annotations

from torch import nn

from lengthwise.arguments import refuse
from lengthwise.errors import InputError
from lengthwise.own_models.adapter import Adapter
from lengthwise.own_models.plain import Plain, offers_bias
from lengthwise.own_models.tokens import Tokens
from lengthwise.own_models.torch_nn import TorchLayers, holds_layers


def adapter_of(model: object, tokens: Tokens) -> Adapter:
    """The adapter of a model.

    Args:
        model: a module, or an adapter of a person's own.
        tokens: its ids.

    Raises:
        InputError: for what no adapter fits.
    """
    if isinstance(model, Adapter):
        return model
    if not isinstance(model, nn.Module):
        refuse("model", "a torch module", model)
    if offers_bias(model):
        return Plain(model, tokens)
    libraries = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    if "transformers" in libraries:
        from lengthwise.own_models.hugging_face import HuggingFace

        return HuggingFace(model)  # type: ignore[arg-type]
    if "x_transformers" in libraries:
        from lengthwise.own_models.x_transformers import XTransformers

        return XTransformers(model)
    if holds_layers(model):
        return TorchLayers(model)
    for wrapper in ("_orig_mod", "module"):
        if isinstance(getattr(model, wrapper, None), nn.Module):
            raise InputError(
                f"{type(model).__name__} is a wrapper; pass the model in it, model.{wrapper}"
            )
    raise InputError(
        f"{type(model).__name__} is no model that lengthwise knows how to read: its forward needs the "
        f"arguments bias and return_attention (docs/own_models.md), or it must be of torch.nn's "
        f"Transformer parts, of Hugging Face transformers or of x-transformers"
    )
