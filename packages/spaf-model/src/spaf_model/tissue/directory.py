"""The model directory of an own-tissue model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from spaf_model._files import read_json_object
from spaf_model.errors import InputError
from spaf_model.model_directory import (
    CARD_FILE,
    CONFIG_FILE,
    FORMAT_VERSION,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    load_tensors,
    not_finite,
)
from spaf_model.tissue.config import TissueConfig
from spaf_model.tissue.network import PlaceNetwork
from spaf_model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

FAMILY = "tissue"


def read_directory(path: Path) -> tuple[TissueConfig, Vocabulary, dict[str, torch.Tensor], str]:
    """Read configuration, vocabulary, tensors and card; nothing is unpickled.

    Raises
    ------
    InputError
        If a file is missing, damaged, of another family or a newer format version, or a weight is not finite.
    """
    missing = [name for name in (CONFIG_FILE, VOCABULARY_FILE, WEIGHTS_FILE) if not (path / name).is_file()]
    if missing:
        there = f"it has no {', '.join(missing)}" if path.is_dir() else "there is no such folder"
        raise InputError(f"{path} is not a model directory: {there}.")
    content = read_json_object(path / CONFIG_FILE, newest=FORMAT_VERSION)
    if content.get("family") != FAMILY:
        raise InputError(f"{path / CONFIG_FILE} has the family {content.get('family')!r}, not {FAMILY!r}.")
    if not isinstance(content.get("config"), dict):
        raise InputError(f"{path / CONFIG_FILE} has no 'config'.")
    try:
        config = TissueConfig.from_dict(content["config"])
    except InputError as error:
        raise InputError(f"{path / CONFIG_FILE}: {error}") from error
    vocabulary = Vocabulary.load(path / VOCABULARY_FILE)
    try:
        with safe_open(path / WEIGHTS_FILE, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    except SafetensorError as error:
        raise InputError(f"{path / WEIGHTS_FILE} is damaged or truncated: {error}.") from error
    bad = not_finite(tensors)
    if bad:
        raise InputError(f"{path / WEIGHTS_FILE} cannot be used: it holds weights that are NaN or infinite. {bad}.")
    card = (path / CARD_FILE).read_text("utf-8") if (path / CARD_FILE).is_file() else ""
    return config, vocabulary, tensors, card


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
    for name in ("closed", "identity"):
        if name not in tensors or tensors[name].ndim != 2 or tensors[name].shape[0] != n_genes:
            raise InputError(f"The tensors of {source} do not fit its configuration; {name} is not {n_genes} rows.")
    closed = tensors["closed"]
    rest = {name: tensor for name, tensor in tensors.items() if name not in ("closed", "identity")}
    if config.network is None:
        if rest:
            raise InputError(f"The tensors of {source} do not fit its configuration; unexpected: {', '.join(rest)}.")
        return closed, tensors["identity"], None
    network = PlaceNetwork(closed, config.network.widths, config.network.dropout)
    state = {name.removeprefix("network."): tensor for name, tensor in rest.items()}
    load_tensors(network, state | {"linear": closed}, source=source)
    return closed, tensors["identity"], network.eval()
