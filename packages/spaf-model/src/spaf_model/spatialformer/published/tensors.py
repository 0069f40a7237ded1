"""Published tensors under our names, in our layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from spaf_model.errors import InputError
from spaf_model.model_directory import tensor_problems
from spaf_model.spatialformer.network import SpatialFormerNetwork

if TYPE_CHECKING:
    from spaf_model.spatialformer.config import SpatialFormerConfig

# Tensors that the published network creates and never uses, the weights of its losses, and a counter of batch norm.
DROPPED = ("encoder.emb_proj.*", "encoder.bpp_feature_proj.*", "encoder.bpp_convnet.*", "log_sigma_*")
_COUNTER = "num_batches_tracked"

_MODULES = {
    "embedding.tokens": "embeddings",
    "embedding.types": "token_type_embeddings",
    "embedding.gene_spatial": "spatialembeds.emb",
    "embedding.norm": "encoder.norm",
    "masked_gene_head": "classifier_head",
    "pair_head": "pair_head",
    "colocalization_head.project": "adjprojector.fc",
    "colocalization_head.project_i": "adjprojector.project_i",
    "colocalization_head.project_j": "adjprojector.project_j",
}
_BLOCK_MODULES = {
    "mixer_norm": "norm1",
    "mlp_norm": "norm2",
    "mlp.expand": "mlp.ffn1",
    "mlp.project": "mlp.ffn2",
    "mlp_affine": "mlp_scale",
}
_CONVOLUTION_MODULES = {
    **_BLOCK_MODULES,
    "mixer.expand": "expand_conv",
    "mixer.norm": "conv_norm",
    "mixer.project": "conv_proj",
    "mixer_affine": "conv_scale",
}
_ATTENTION_MODULES = {
    **_BLOCK_MODULES,
    "mixer.qkv": "self_attn.qkv",
    "mixer.project": "self_attn.proj",
    "mixer_affine": "attn_scale",
}


def convert_tensors(
    tensors: Mapping[str, torch.Tensor], config: SpatialFormerConfig, *, qkv_by_head: bool, source: str
) -> dict[str, torch.Tensor]:
    """Return the tensors of a network from published ones.

    Parameters
    ----------
    tensors
        The published tensors, by their published names.
    config
        Configuration of the network.
    qkv_by_head
        The rows of qkv are laid out as [head][q|k|v][dim] (explicit attention), not as [q|k|v][head][dim] (flash).
    source
        Name of the checkpoint, for messages.

    Raises
    ------
    InputError
        If tensors are missing, unexpected or misshapen; the sentence lists them by their published names.
    """
    with torch.device("meta"):
        ours = SpatialFormerNetwork(config).state_dict()
    names = {name: _published_name(name) for name in ours}
    expected = {
        published: torch.Size((ours[name].shape[0], 1, ours[name].shape[1])) if _is_taps(name) else ours[name].shape
        for name, published in names.items()
    }
    found = {name: tensor.shape for name, tensor in tensors.items() if not _is_dropped(name)}
    problems = tensor_problems(expected, found)
    if problems:
        raise InputError(f"The tensors of {source} are not those of a published SpatialFormer; {problems}.")
    converted = {}
    for name, published in names.items():
        tensor = tensors[published]
        if _is_taps(name):
            tensor = tensor.squeeze(1)
        elif qkv_by_head and ".qkv." in name:
            tensor = part_major(tensor, config.n_heads)
        # A copy, because the checkpoint is mapped: the model must outlive the file.
        converted[name] = tensor.clone(memory_format=torch.contiguous_format)
    return converted


def part_major(qkv: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Reorder rows (3 D, ...) from [head][q|k|v][dim] to [q|k|v][head][dim]."""
    parts: torch.Tensor = qkv.unflatten(0, (n_heads, 3, -1))
    return parts.transpose(0, 1).flatten(0, 2)


def _published_name(name: str) -> str:
    module, _, parameter = name.rpartition(".")
    if not module.startswith("layers."):
        return f"{_MODULES[module]}.{parameter}"
    _, layer, block, within = module.split(".", 3)
    if block == "attention":
        return f"encoder.layers.{layer}.attn_blocks.0.{_ATTENTION_MODULES[within]}.{parameter}"
    prefix = f"encoder.layers.{layer}.conv_blocks.0."
    if _is_taps(name):
        return f"{prefix}conv.conv.conv.weight"
    return f"{prefix}{_CONVOLUTION_MODULES[within]}.{parameter}"


def _is_taps(name: str) -> bool:
    return name.endswith(".mixer.depthwise")


def _is_dropped(name: str) -> bool:
    return name.startswith(tuple(pattern.removesuffix("*") for pattern in DROPPED)) or name.endswith(_COUNTER)
