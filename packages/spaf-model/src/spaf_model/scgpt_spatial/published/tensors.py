"""Published tensors under our names; `_MODULES` and `_LAYER_MODULES` are the whole table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from spaf_model.errors import InputError
from spaf_model.model_directory import tensor_problems
from spaf_model.scgpt_spatial.network import ScGPTSpatialNetwork

if TYPE_CHECKING:
    from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig

# Heads of labels that nobody but their makers knows, which the parent's checkpoints may hold.
DROPPED = ("cls_decoder.*", "grad_reverse_discriminator.*")

_MODULES = {
    "genes.table": "encoder.embedding",
    "genes.norm": "encoder.enc_norm",
    "values.expand": "value_encoder.linear1",
    "values.mix": "value_encoder.linear2",
    "values.norm": "value_encoder.norm",
    "flags": "flag_encoder",
    "technologies.table": "batch_encoder.embedding",
    "technologies.norm": "batch_encoder.enc_norm",
    "token_decoder.router": "decoder.moe.gate.gate",
    "token_decoder.read": "decoder.fc.0",
    "token_decoder.mix": "decoder.fc.2",
    "token_decoder.score": "decoder.fc.4",
    "cell_decoder.query": "mvc_decoder.gene2query",
    "cell_decoder.match": "mvc_decoder.W",
    "neighbourhood_decoder.query": "impute_mvc_decoder.gene2query",
    "neighbourhood_decoder.match": "impute_mvc_decoder.W",
}
_LAYER_MODULES = {
    "attention.qkv": "self_attn.Wqkv",
    "attention.project": "self_attn.out_proj",
    "attention_norm": "norm1",
    "expand": "linear1",
    "contract": "linear2",
    "mlp_norm": "norm2",
}
_NUMBERED = re.compile(r"(layers|token_decoder\.experts)\.(\d+)\.(.+)")
_PACKED = re.compile(r"(.*\.self_attn\.)in_proj_(weight|bias)")  # the name that torch's own attention has for Wqkv


def published_name(name: str) -> str:
    """Return the published name of one of our tensors."""
    module, _, parameter = name.rpartition(".")
    numbered = _NUMBERED.fullmatch(module)
    if numbered is None:
        return f"{_MODULES[module]}.{parameter}"
    kind, number, within = numbered.groups()
    if kind == "layers":
        return f"transformer_encoder.layers.{number}.{_LAYER_MODULES[within]}.{parameter}"
    of_plain = _MODULES[f"token_decoder.{within}"].removeprefix("decoder.")
    return f"decoder.moe.experts.{number}.{of_plain}.{parameter}"


def with_one_layout(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors with queries, keys and values named as the published code does; their rows are in one order."""
    return {_PACKED.sub(r"\1Wqkv.\2", name): tensor for name, tensor in tensors.items()}


def convert_tensors(
    tensors: Mapping[str, torch.Tensor], config: ScGPTSpatialConfig, *, may_drop: bool, source: str
) -> dict[str, torch.Tensor]:
    """Return the tensors of a network from published ones.

    Parameters
    ----------
    tensors
        By published names, in one layout.
    config
        Configuration of the network.
    may_drop
        Whether tensors of `DROPPED` may be there.
    source
        Name of the checkpoint, for messages.

    Raises
    ------
    InputError
        If tensors are missing, unexpected or misshapen; the sentence lists them by their published names.
    """
    with torch.device("meta"):
        ours = ScGPTSpatialNetwork(config).state_dict()
    names = {name: published_name(name) for name in ours}
    found = {name: tensor.shape for name, tensor in tensors.items() if not (may_drop and is_dropped(name))}
    problems = tensor_problems({published: ours[name].shape for name, published in names.items()}, found)
    if problems:
        raise InputError(f"The tensors of {source} are not those of the model that its folder describes; {problems}.")
    # Copies, because the checkpoint is mapped: the model must outlive the file.
    return {name: tensors[published].to(ours[name].dtype, copy=True).contiguous() for name, published in names.items()}


def is_dropped(name: str) -> bool:
    """Return whether a tensor is of `DROPPED`."""
    return name.startswith(tuple(pattern.removesuffix("*") for pattern in DROPPED))
