"""Checkpoints of the paper's code: weights of a `torch.nn.Transformer`, turned into those of our model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lengthwise.bias import MatrixBias
from lengthwise.model.positions import POSITIONS
from lengthwise.paper_repo.ini import SeedOptions
from lengthwise.paper_repo.tensors import find_lines, load_tensors, read_bias
from lengthwise.problems.layout import END, START, Vocabulary
from lengthwise.runs.folder import locked, prepare
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, InputError, make_config
from lengthwise.training.resuming import changed

# What DistributedDataParallel puts before every name.
_WRAPPED = "module."
_POSITIONS = "positional_encoding.pos_embedding"


def convert_checkpoint(
    path: Path,
    options: SeedOptions,
    out: Path,
    *,
    set: tuple[str, ...] = (),
    bias: tuple[Path, ...] = (),
    force: bool = False,
) -> Run:
    """Make a run folder of a checkpoint: evaluate, calibrate, solve and explain take it like any other.

    Args:
        path: a file that torch.save wrote, a dictionary with `model_state_dict`.
        options: the settings file that it was trained with.
        out: the run folder.
        set: assignments that change settings, such as `"device=cpu"`.
        bias: its bias files, in place of WINDOW_PATH and WINDOW_SELF_PATH.
        force: write over a run that exists.

    Raises:
        InputError: when the file is no such checkpoint, its shapes are not those of the options, or the
            folder may not be written.
    """
    config = make_config(options.settings(), set)
    if config.model.kind != "encoder-decoder":
        raise InputError(
            f"{path} holds a model with cross-attention, as the paper's code makes them; model.kind must "
            f"be encoder-decoder, got {config.model.kind}"
        )
    weights = convert_weights(load_state(path), options, config)
    model = make_model(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{path} does not fit {options.path}: {detail}") from error
    paths = list(bias) or options.window_paths()
    loaded = read_bias(paths, config.task) if paths else None
    with locked(out):
        prepare(out, resume=None, force=force)
        run = Run.create(out, config, loaded)
        run.save_model(model)
    return run


def convert_run(path: Path, out: Path, *, force: bool = False) -> tuple[Run, list[str]]:
    """The same weights with lines in place of fixed matrices, which every length can be asked of.

    Returns:
        The new run, and sentences on what the lines leave out.

    Raises:
        InputError: when the run has no matrices, or they are not lines.
    """
    opened = Run.open(path)
    if not isinstance(opened.bias, MatrixBias):
        raise InputError(f"{opened.path} has no bias of matrices that could become lines")
    lines, notes = find_lines(opened.bias)
    config = changed(opened.config, "evaluation", padding="answer")
    with locked(out):
        prepare(out, resume=None, force=force)
        run = Run.create(out, config, lines)
        run.save_model(opened.model)
    return run, notes


def load_state(path: Path) -> dict[str, Tensor]:
    """The model's weights in a checkpoint, by their names there.

    Raises:
        InputError: when the file holds no `model_state_dict` of tensors.
    """
    content = load_tensors(path)
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path} holds no model_state_dict of tensors")
    return {str(name).removeprefix(_WRAPPED): tensor for name, tensor in state.items()}


def convert_weights(
    state: dict[str, Tensor], options: SeedOptions, config: Config
) -> dict[str, Tensor]:
    """Weights by their names in our model.

    Theirs is post-norm, its embedding serves source and target and is scaled by the square root of the
    width; tokens are ordered as there and are put into our order, the ones that this task lacks
    (padding, other operators) left out.

    Raises:
        InputError: for an encoder that is not the identity, or names or numbers that do not fit.
    """
    encoder = [name for name in state if name.startswith("transformer.encoder.")]
    if encoder:
        raise InputError(
            f"the checkpoint has encoder weights ({encoder[0]}); only models with the identity encoder, "
            f"which train.py there builds, are converted"
        )
    remaining = dict(state)
    _check_positions(remaining.pop(_POSITIONS, None), options, config)

    def take(name: str) -> Tensor:
        if name not in remaining:
            raise InputError(f"the checkpoint lacks {name}; {options.path} describes another model")
        return remaining.pop(name).to(torch.float32)

    embedding, output = take("tok_emb.embedding.weight"), take("generator.weight")
    offset = take("generator.bias")
    if len(embedding) != len(options.tokens) or len(output) != len(options.tokens):
        raise InputError(
            f"the checkpoint has {len(embedding)} tokens, but BASE and INCLUDE_OPS of {options.path} make "
            f"{len(options.tokens)}"
        )
    order = token_order(options, config)
    weights = {
        "source_embedding.weight": embedding[order],
        "target_embedding.weight": embedding[order].clone(),
        "to_logits.weight": output[order],
        "to_logits.bias": offset[order],
    }
    width = config.model.width
    for theirs, ours in decoder_names(config.model.layers).items():
        tensor = take(f"transformer.decoder.{theirs}")
        # Queries come first where queries, keys and values are one.
        pieces = [tensor] if len(ours) == 1 else [tensor[:width].clone(), tensor[width:].clone()]
        weights |= zip(ours, pieces, strict=True)
    if remaining:
        raise InputError(
            f"the checkpoint has {min(remaining)}, which a model of {options.path} lacks"
        )
    return weights


# What parts of one of torch's layers are called in ours; of several each holds some of the rows.
_TORCH_PARTS = {
    "self_attn.in_proj_": ("self_attention.query_key_value.",),
    "self_attn.out_proj.": ("self_attention.out.",),
    "multihead_attn.in_proj_": ("cross_attention.query.", "cross_attention.key_value."),
    "multihead_attn.out_proj.": ("cross_attention.out.",),
    "linear1.": ("expand.",),
    "linear2.": ("contract.",),
    "norm1.": ("norm_self.",),
    "norm2.": ("norm_cross.",),
    "norm3.": ("norm_feed_forward.",),
}


def decoder_names(layers: int) -> dict[str, list[str]]:
    """Names of weights in `nn.TransformerDecoder`, and those of ours that make each, row upon row."""
    names = {}
    for kind in ("weight", "bias"):
        names[f"norm.{kind}"] = [f"norm.{kind}"]
        for layer in (f"layers.{i}." for i in range(layers)):
            for theirs, ours in _TORCH_PARTS.items():
                names[f"{layer}{theirs}{kind}"] = [f"{layer}{part}{kind}" for part in ours]
    return names


def token_order(options: SeedOptions, config: Config) -> Tensor:
    """For each of our tokens its number there, int64 `[token]`."""
    task = config.make_task()
    frame = {START: options.sos, END: options.eos}
    characters = Vocabulary(task.base, task.symbols).characters
    return torch.tensor([options.tokens.index(frame.get(c, c.upper())) for c in characters])


def _check_positions(table: Tensor | None, options: SeedOptions, config: Config) -> None:
    """Refuse positions that are not those of ENCODING_TYPE: they are saved with the weights there."""
    if table is None:
        return
    table = table.flatten(0, -2)[: 2 * options.fixed_len + 3]
    ours = POSITIONS[config.model.positions](torch.arange(len(table)), table.shape[-1])
    if not torch.allclose(ours, table.float(), atol=1e-4):
        raise InputError(
            f"the checkpoint's positions are not those of ENCODING_TYPE = {options.encoding_type}"
        )
