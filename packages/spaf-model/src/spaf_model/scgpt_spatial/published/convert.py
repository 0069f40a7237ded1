"""From a published folder to a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from spaf_model.errors import InputError
from spaf_model.model_directory import load_tensors
from spaf_model.scgpt_spatial.model import ScGPTSpatial
from spaf_model.scgpt_spatial.published.card import model_card
from spaf_model.scgpt_spatial.published.folder import (
    MEANS,
    TECHNOLOGIES,
    VOCABULARY,
    PublishedFolder,
    read_folder,
)
from spaf_model.scgpt_spatial.published.tensors import convert_tensors, is_dropped
from spaf_model.scgpt_spatial.published.vocabulary import (
    make_vocabulary,
    read_gene_ids,
    read_ids,
    read_means,
    read_technologies,
    read_wheel_ids,
)

if TYPE_CHECKING:
    from spaf_model.vocabulary import Vocabulary


def convert_published_folder(
    folder: str | Path, *, wheel: str | Path | None = None, gene_ids: str | Path | None = None
) -> ScGPTSpatial:
    """Make a model from a folder of the published scGPT-spatial (V1), or of its parent scGPT.

    Every tensor must be there with its shape, and none may be left; of the parent, the heads of labels are left out and
    the card says so. Nothing in the files can run, and nothing needs flash-attn, torchtext or a GPU.

    Parameters
    ----------
    folder
        With ``best_model.pt``, ``args.json`` and ``vocab.json``; of scGPT-spatial also ``all_dict_mean_std.csv`` and
        ``batch_mapping_dict.json``. What others ported may have ``config.json`` in place of ``args.json``.
    wheel
        The parent's published wheel, to take the vocabulary out of, instead of ``vocab.json``.
    gene_ids
        A table of Ensembl ids and symbols, such as ``features.tsv.gz`` of 10x, so that the model knows genes by ids
        too. Ids of symbols that have several are left out.

    Raises
    ------
    InputError
        If a file is missing or is not what it should be, a tensor is missing, unexpected or misshapen, the vocabulary
        has not the size of the gene table, or the recorded id of padding is that of a gene.
    FileNotFoundError
        If wheel or table are not there.

    Examples
    --------
    Convert once, then use the model directory::

        model = convert_published_folder("scGPT_spatial_v1")
        model.save_pretrained("scgpt-spatial-v1")
    """
    path = Path(folder)
    source = read_folder(path, has_vocabulary=wheel is not None)
    ids = read_ids(path / VOCABULARY) if wheel is None else read_wheel_ids(Path(wheel))
    vocabulary_file = path / VOCABULARY if wheel is None else Path(wheel)
    n_rows = source.tensors["encoder.embedding.weight"].shape[0]
    if len(ids) != n_rows:
        raise InputError(
            f"{vocabulary_file.name} has {len(ids):,} tokens, but the gene table of {source.weights.name} has "
            f"{n_rows:,} rows: they are not of one model."
        )
    _check_pad(source, ids, vocabulary_file.name)
    vocabulary = _vocabulary(source, ids, vocabulary_file.name, None if gene_ids is None else Path(gene_ids))
    config = ScGPTSpatial.fitting_config(source.config(), vocabulary)
    is_parent = source.kind == "scGPT"
    tensors = convert_tensors(source.tensors, config, may_drop=is_parent, source=source.weights.name)
    with torch.device("meta"):
        model = ScGPTSpatial(config, vocabulary)
    load_tensors(model.network, tensors, source=source.weights.name)
    model.network.eval()
    model.source = str(folder)
    dropped = [name for name in source.tensors if is_dropped(name)] if is_parent else []
    files = [source.weights, source.args_file, vocabulary_file]
    files += [path / name for name in (MEANS, TECHNOLOGIES) if not is_parent]
    files += [] if gene_ids is None else [Path(gene_ids)]
    model.card = model_card(source.kind, model, files=files, n_dropped=len(dropped))
    return model


def _check_pad(source: PublishedFolder, ids: Mapping[str, int], vocabulary_name: str) -> None:
    """Refuse an id of padding that means a gene: rows of the table would be taken for one another."""
    recorded = source.args.get("pad_token_id")
    if recorded is None:
        return
    names = {token: name for name, token in ids.items()}
    if recorded != ids.get(source.pad):
        raise InputError(
            f"{source.args_file.name} records pad_token_id {recorded!r}, which is {names.get(recorded, 'no token')!r} "
            f"in {vocabulary_name}, where {source.pad!r} is {ids.get(source.pad)}: its maker padded with a gene, and "
            "embeddings of that port are not those of the model; correct the file, or convert the published folder."
        )


def _vocabulary(
    source: PublishedFolder, ids: Mapping[str, int], vocabulary_name: str, gene_ids: Path | None
) -> Vocabulary:
    means: dict[int, float] = {}
    technologies: list[str] = []
    if source.kind == "scGPT-spatial":
        means = read_means(source.path / MEANS, len(ids))
        technologies = read_technologies(source.path / TECHNOLOGIES)
        n_rows = source.config().n_technologies
        if len(technologies) != n_rows:
            raise InputError(
                f"{TECHNOLOGIES} has {len(technologies)} technologies, but {source.weights.name} has {n_rows}."
            )
    return make_vocabulary(
        ids, means=means, technologies=technologies, pad=source.pad, source=vocabulary_name,
        gene_ids=None if gene_ids is None else read_gene_ids(gene_ids),
    )  # fmt: skip
