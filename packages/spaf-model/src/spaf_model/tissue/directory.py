"""The model directory of an own-tissue model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spaf_model.errors import InputError
from spaf_model.model_directory import CONFIG_FILE, load_tensors, read_model_directory
from spaf_model.tissue.config import TissueConfig
from spaf_model.tissue.network import PlaceNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spaf_model.vocabulary import Vocabulary

FAMILY = "tissue"


def read_directory(path: Path) -> tuple[TissueConfig, Vocabulary, dict[str, torch.Tensor], str]:
    """Read configuration, vocabulary, tensors and card of this family.

    Raises
    ------
    InputError
        If it is a model of another family, and as `read_model_directory`.
    """
    found = read_model_directory(path)
    if found.family != FAMILY:
        raise InputError(f"{path / CONFIG_FILE} has the family {found.family!r}, not {FAMILY!r}.")
    try:
        config = TissueConfig.from_dict(found.config)
    except InputError as error:
        raise InputError(f"{path / CONFIG_FILE}: {error}") from error
    return config, found.vocabulary, dict(found.tensors), found.card


def parts_of(
    tensors: Mapping[str, torch.Tensor], config: TissueConfig, vocabulary: Vocabulary, *, source: str
) -> tuple[torch.Tensor, torch.Tensor, PlaceNetwork | None]:
    """Return loadings of the closed form and of identity, and the network beside the closed form where there is one.

    Raises
    ------
    InputError
        If the tensors do not fit the configuration; the sentence names the source.
    """
    n_genes = vocabulary.gene_token_ids.size
    if config.identity_weight is None:
        raise InputError(f"{CONFIG_FILE} of {source} is not of a fitted model: it has no identity_weight.")
    tensors = dict(tensors)
    for name in ("closed", "identity"):
        if name in tensors and tensors[name].dtype == torch.float16:  # as stored to be small
            tensors[name] = tensors[name].float()
        if name not in tensors or tensors[name].ndim != 2 or tensors[name].shape[0] != n_genes:
            raise InputError(f"The tensors of {source} do not fit its configuration; {name} is not {n_genes} rows.")
        if tensors[name].dtype != torch.float32:
            raise InputError(f"The tensors of {source} do not fit its configuration; {name} is {tensors[name].dtype}.")
    closed = tensors["closed"]
    needed = {"identity": True, "closed": closed.shape[1] > 0, "network": config.network is not None}
    lacking = [name for name, is_needed in needed.items() if is_needed and name not in config.scales]
    if lacking:
        raise InputError(f"{CONFIG_FILE} of {source} is not of a fitted model: scales has no {lacking[0]!r}.")
    rest = {name: tensor for name, tensor in tensors.items() if name not in ("closed", "identity")}
    if config.network is None:
        if rest:
            raise InputError(f"The tensors of {source} do not fit its configuration; unexpected: {', '.join(rest)}.")
        return closed, tensors["identity"], None
    network = PlaceNetwork(closed, config.network.widths, config.network.dropout)
    state = {name.removeprefix("network."): tensor for name, tensor in rest.items()}
    load_tensors(network, state | {"linear": closed}, source=source)
    return closed, tensors["identity"], network.eval()
