"""From a published checkpoint to a model."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from spaf_model.errors import InputError
from spaf_model.model_directory import load_tensors
from spaf_model.spatialformer.config import SpatialFormerConfig
from spaf_model.spatialformer.model import SpatialFormer
from spaf_model.spatialformer.published.card import model_card
from spaf_model.spatialformer.published.checkpoint import Checkpoint, read_checkpoint
from spaf_model.spatialformer.published.tensors import convert_tensors
from spaf_model.spatialformer.published.vocabulary import read_vocabulary, read_wheel_vocabulary

if TYPE_CHECKING:
    from spaf_model.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

AttentionVariant = Literal["explicit", "flash"]

FLASH_KEY = "use_flash_attn"  # the hyper-parameter that chose the attention class
_SIZES = {"width": "dim_model", "n_layers": "nlayers", "n_heads": "nheads"}  # ours -> hyper-parameter
# A tensor that nothing uses, but that has one row for each attention head.
_ROW_PER_HEAD = "encoder.bpp_convnet.conv2.conv.conv.weight"
# Present only where a gene graph was added to the attention scores, which makes it another architecture.
_GENE_GRAPH = "encoder.bpp_weight"


def convert_published(
    checkpoint: str | Path,
    *,
    vocabulary: str | Path | None = None,
    scale: str | Path | None = None,
    wheel: str | Path | None = None,
    attention: AttentionVariant | None = None,
) -> SpatialFormer:
    """Make a model from a checkpoint of the published SpatialFormer, v1 or v2.

    Nothing in the files can run: the checkpoint is read with weights-only loading, the medians by a reader of numbers.

    Two attention classes of the published code read the same weights in two ways: the explicit one takes the rows of
    qkv as [head][q|k|v][dim] with scores times width ** -0.5, the flash one as [q|k|v][head][dim] with scores times
    head_dim ** -0.5. The model computes what the class named by `attention` computes, in one layout, with the factor in
    its configuration.

    Parameters
    ----------
    checkpoint
        The ``.ckpt``.
    vocabulary, scale
        The token file (``tokenv5.json``; ``tokenv4.json`` for v1) and ``gene_median.pkl``.
    wheel
        The published wheel, to take both out of; instead of `vocabulary` and `scale`.
    attention
        The class that the weights were trained with, ``"explicit"`` or ``"flash"``. None takes it from the checkpoint's
        hyper-parameter ``use_flash_attn``; where both are there, the argument wins, with a warning if they differ.

    Raises
    ------
    InputError
        If a file is not what it should be, a tensor is missing, unexpected or misshapen, or nothing says which
        attention was used.
    FileNotFoundError
        If a file is missing.

    Examples
    --------
    Convert once, then use the model directory::

        model = convert_published("v2.ckpt", wheel="spatialformer-0.1.8-py3-none-any.whl", attention="flash")
        model.save_pretrained("spatialformer-v2")
    """
    if attention is not None and attention not in get_args(AttentionVariant):
        raise InputError(f"attention must be one of {', '.join(get_args(AttentionVariant))}, not {attention!r}.")
    if wheel is None and (vocabulary is None or scale is None):
        raise InputError("Give both vocabulary and scale, or the published wheel instead.")
    if wheel is not None and (vocabulary is not None or scale is not None):
        raise InputError("Give vocabulary and scale, or the published wheel, not both.")
    source = read_checkpoint(Path(checkpoint))
    if _GENE_GRAPH in source.tensors:
        raise InputError(
            f"{source.name} was trained with a gene graph added to its attention ({_GENE_GRAPH}); "
            "such checkpoints are not supported."
        )
    version = source.version
    variant, told_by = _attention(source, attention)
    if wheel is not None:
        known = read_wheel_vocabulary(Path(wheel), version)
    else:
        assert vocabulary is not None
        assert scale is not None
        known = read_vocabulary(Path(vocabulary), Path(scale))
    config = _config(source, known, variant)
    tensors = convert_tensors(source.tensors, config, qkv_by_head=variant == "explicit", source=source.name)
    with torch.device("meta"):
        model = SpatialFormer(config, known)
    load_tensors(model.network, tensors, source=source.name)
    model.network.eval()
    model.source = str(checkpoint)
    model.card = model_card(
        source,
        attention=f"{variant} ({told_by})",
        vocabulary_files=[Path(file) for file in (vocabulary, scale, wheel) if file is not None],
        n_genes=int(known.gene_token_ids.size),
    )
    return model


def _attention(source: Checkpoint, given: AttentionVariant | None) -> tuple[AttentionVariant, str]:
    """Return the variant and what told it."""
    recorded = source.hyper_parameters.get(FLASH_KEY)
    if not isinstance(recorded, bool):
        if given is None:
            raise InputError(
                f"{source.name} does not record which attention it was trained with (hyper-parameter {FLASH_KEY}): "
                f"say attention={' or attention='.join(get_args(AttentionVariant))}; the wrong one gives wrong results."
            )
        return given, "given at the conversion; the checkpoint does not record it"
    told: AttentionVariant = "flash" if recorded else "explicit"
    if given is None or given == told:
        return told, f"hyper-parameter {FLASH_KEY} of the checkpoint"
    logger.warning("%s records %s attention; it is converted as %s, as asked.", source.name, told, given)
    return given, f"given at the conversion, although the checkpoint records {told}"


def _config(source: Checkpoint, vocabulary: Vocabulary, variant: AttentionVariant) -> SpatialFormerConfig:
    """Return the published configuration, with the sizes that the checkpoint records."""
    recorded = source.hyper_parameters
    changed: dict[str, Any] = {ours: recorded[theirs] for ours, theirs in _SIZES.items() if theirs in recorded}
    if "n_heads" not in changed and _ROW_PER_HEAD in source.tensors:
        changed["n_heads"] = source.tensors[_ROW_PER_HEAD].shape[0]
    outer = recorded.get("outer_config")
    if isinstance(outer, dict) and outer.get("spatial_embedding") is False:
        changed["gene_spatial_embedding"] = False
    published = SpatialFormerConfig.published(source.version)
    try:
        sized = dataclasses.replace(published, n_tokens=vocabulary.n_tokens, attention_scale=None, **changed)
    except InputError as error:
        raise InputError(f"{source.name} records sizes that cannot be: {error}") from error
    scaled_by = sized.width if variant == "explicit" else sized.head_dim
    return dataclasses.replace(sized, attention_scale=scaled_by**-0.5)
