"""The call of the published project, so that code written for it runs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import torch

from spaf_model.errors import InputError
from spaf_model.scgpt_spatial.model import ScGPTSpatial
from spaf_model.scgpt_spatial.published import convert_published_folder

if TYPE_CHECKING:
    from spaf_model.gene_names import GeneNames

logger = logging.getLogger(__name__)

KEY = "X_scGPT"
_INDEX = "index"


def embed_data(
    adata_or_file: anndata.AnnData | str | Path,
    model_dir: str | Path,
    gene_col: str = "feature_name",
    max_length: int = 1200,
    batch_size: int = 64,
    obs_to_save: str | Sequence[str] | None = None,
    device: str | torch.device | None = None,
    use_fast_transformer: bool = True,
    return_new_adata: bool = False,
    *,
    layer: str | None = None,
    gene_names: GeneNames | None = None,
    min_gene_fraction: float = 0.5,
) -> anndata.AnnData:
    """Embed cells by the call of the published scGPT-spatial.

    It takes the arguments of ``scgpt_spatial.tasks.embed_data`` and returns what that returns: states at CLS over their
    length, float32. New code is better off with `ScGPTSpatial.embed`.

    Parameters
    ----------
    adata_or_file
        Raw counts, cells x genes, or an h5ad.
    model_dir
        A model directory, or a published folder, which is then converted in memory (`convert_published_folder`).
    gene_col
        Column of ``var`` with the genes; ``"index"`` is ``var_names``.
    max_length
        Most tokens of a cell, CLS included.
    batch_size
        Memory of a batch, in cells as long as the longest: the setting to lower when memory runs out. Results do not
        depend on it.
    obs_to_save
        Columns of ``obs`` that a new AnnData keeps.
    device
        Where to compute; None takes a GPU if there is one.
    use_fast_transformer
        Changes nothing: weights are read in full whatever kernel computes.
    return_new_adata
        Return a new AnnData with the embedding as X instead of writing ``obsm["X_scGPT"]``.
    layer, gene_names, min_gene_fraction
        As for `ScGPTSpatial.embed`.

    Returns
    -------
    AnnData
        The one that was given, or read, with ``obsm["X_scGPT"]`` in place; or a new one. Rows of cells without a gene
        of the model are NaN.

    Raises
    ------
    InputError
        If a column is not there, the folder is no model of this family, and as for `ScGPTSpatial.embed`.

    Notes
    -----
    Other than in the published code: the AnnData that was given gets the embedding, and keeps all its genes; barcodes
    stay in a new one; genes of equal count have one bin, not any at random; of a cell longer than `max_length` the
    genes of highest value stay, not any; a gene without a population mean is divided by 1, whatever else is passed in
    the call; counts are checked; too few genes, or genes that stand there twice, are an error; an empty cell is a row
    of NaN.

    Examples
    --------
    Code of the published tutorial, with the import changed::

        from spaf_model.scgpt_spatial import tl
        embedded = tl.embed_data(
            adata, "scGPT_spatial_v1", gene_col="feature_name", obs_to_save="celltype", batch_size=64,
            return_new_adata=True,
        )
    """
    for name, value, least in (("max_length", max_length, 2), ("batch_size", batch_size, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    adata = adata_or_file if isinstance(adata_or_file, anndata.AnnData) else _read(Path(adata_or_file))
    if gene_col != _INDEX and gene_col not in adata.var.columns:
        columns = ", ".join(map(str, adata.var.columns)) or "none"
        raise InputError(
            f"var has no column {gene_col!r} (gene_col); it has: {columns}. gene_col='index' takes var_names."
        )
    columns_kept = [obs_to_save] if isinstance(obs_to_save, str) else list(obs_to_save or ())
    missing = [column for column in columns_kept if column not in adata.obs.columns]
    if missing:
        raise InputError(f"obs has no column {missing[0]!r} (obs_to_save); it has: {_names(adata.obs)}.")
    if not use_fast_transformer:
        logger.info("use_fast_transformer changes nothing here.")
    model = _model(Path(model_dir)).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.config = dataclasses.replace(model.config, max_length=int(max_length))
    longest = min(int(max_length), adata.n_vars + 1)
    budget = min(int(batch_size) * longest, max(model.network.token_budget(model.network.device), longest))
    cells = _with_genes(adata, gene_col, layer)
    model.embed(
        cells, key_added=KEY, gene_names=gene_names, min_gene_fraction=min_gene_fraction, token_budget=budget,
        progress=True,
    )  # fmt: skip
    states = cells.obsm[KEY]
    states = states / np.linalg.norm(states, axis=1, keepdims=True)
    if return_new_adata:
        return anndata.AnnData(states, obs=adata.obs[columns_kept].copy())
    adata.obsm[KEY] = states
    return adata


def _with_genes(adata: anndata.AnnData, gene_col: str, layer: str | None) -> anndata.AnnData:
    """Return the counts with no names of genes but those of a column; nothing is copied but what is backed."""
    if layer is not None and layer not in adata.layers:
        raise InputError(f"There is no layer {layer!r}; the layers are: {', '.join(adata.layers) or 'none'}.")
    counts: Any = adata.X if layer is None else adata.layers[layer]
    if counts is None:
        raise InputError("The AnnData has no X; name the layer that holds the counts with layer=.")
    counts = counts.to_memory() if hasattr(counts, "to_memory") else counts
    genes = adata.var_names if gene_col == _INDEX else adata.var[gene_col]
    var = pd.DataFrame(
        {"feature_name": [str(gene) for gene in genes]}, index=[str(column) for column in range(adata.n_vars)]
    )
    return anndata.AnnData(counts, obs=pd.DataFrame(index=adata.obs_names), var=var)


def _names(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns)) or "none"


def _read(path: Path) -> anndata.AnnData:
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file.")
    try:
        return anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an h5ad: {str(error).splitlines()[0]}") from error


def _model(path: Path) -> ScGPTSpatial:
    if (path / "model.safetensors").is_file():
        return ScGPTSpatial.from_pretrained(path)
    if not path.is_dir():
        raise InputError(f"{path} is neither a model directory nor a published folder.")
    return convert_published_folder(path)
