"""The model as users meet it: weights with their vocabulary, reading and writing AnnData."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model._progress import progress_bar
from spaf_model._record import run_record
from spaf_model.config import SpatialFormerConfig
from spaf_model.context import context_ids
from spaf_model.embedding import (
    EmbeddingMethod,
    EmbeddingSettings,
    PairEmbeddings,
    Precision,
    embed_cell_pairs,
    embed_cells,
)
from spaf_model.errors import InputError
from spaf_model.expression import ExpressionReader, match_genes
from spaf_model.kernels import KernelName
from spaf_model.model_directory import load_tensors, read_model_directory, write_model_directory
from spaf_model.shipped import STARTER, model_path
from spaf_model.spatialformer import SpatialFormerNetwork
from spaf_model.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

DEFAULT_KEY = "X_SpaF"
_ROWS_AT_A_TIME = 16_384  # of the expression matrix; bounds the memory of backed files


class SpatialFormer:
    """A SpatialFormer with its vocabulary.

    Parameters
    ----------
    config
        Sizes; its `n_tokens` is taken from the vocabulary where it is None.
    vocabulary
        Meaning of the token ids.
    seed
        Of the random weights; the global random state is left as it was.

    Raises
    ------
    InputError
        If `config.n_tokens` is not the size of the vocabulary.

    Examples
    --------
    Embed the cells of a slide with a trained model::

        model = SpatialFormer.from_pretrained("starter")
        model.embed(adata, tissue="Breast", condition="Disease", species="Human", assay="Xenium")
        adata.obsm["X_SpaF"]
    """

    def __init__(self, config: SpatialFormerConfig, vocabulary: Vocabulary, seed: int = 0) -> None:
        self._set_parts(config, vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = SpatialFormerNetwork(self.config)

    def _set_parts(self, config: SpatialFormerConfig, vocabulary: Vocabulary) -> None:
        if config.n_tokens is None:
            config = dataclasses.replace(config, n_tokens=vocabulary.n_tokens)
        if config.n_tokens != vocabulary.n_tokens:
            raise InputError(f"config.n_tokens is {config.n_tokens}, but the vocabulary has {vocabulary.n_tokens}.")
        self.config = config
        self.vocabulary = vocabulary
        self.card = ""
        self.source = "not saved"

    @classmethod
    def from_pretrained(cls, path: str | Path = STARTER, *, device: torch.device | str = "cpu") -> SpatialFormer:
        """Read a model directory.

        Parameters
        ----------
        path
            The directory, or the name of a model that comes with the package (`shipped_models`): ``"starter"``, whose
            `card` says what it was trained on and what it is not good for.
        device
            Where the weights go.

        Raises
        ------
        InputError
            If it is not one, is damaged, of a newer format, or its tensors do not fit its configuration.
        """
        directory = read_model_directory(model_path(path))
        model = cls.__new__(cls)
        model._set_parts(directory.config, directory.vocabulary)
        with torch.device("meta"):
            model.network = SpatialFormerNetwork(model.config)
        load_tensors(model.network, directory.tensors, source=str(path))
        model.network.eval()
        model.card = directory.card
        model.source = str(path)
        return model.to(device)

    def save_pretrained(self, path: str | Path) -> None:
        """Write a model directory, whole or not at all; an older model directory of that name is replaced."""
        write_model_directory(
            path, config=self.config, vocabulary=self.vocabulary, tensors=self.network.state_dict(), card=self.card
        )

    def to(self, device: torch.device | str) -> SpatialFormer:
        """Move the weights to a device and return the model.

        Raises
        ------
        InputError
            If torch cannot use the device.
        """
        try:
            self.network.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"The device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error
        return self

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def embed(
        self,
        adata: anndata.AnnData,
        *,
        method: EmbeddingMethod = "cls",
        tissue: str | None = None,
        condition: str | None = None,
        species: str | None = None,
        assay: str | None = None,
        layer: str | None = None,
        key_added: str = DEFAULT_KEY,
        token_budget: int | None = None,
        precision: Precision = "fp32",
        kernel: KernelName | None = None,
        min_gene_fraction: float = 0.5,
        strict: bool = False,
        progress: bool = False,
    ) -> None:
        """Embed the cells of an AnnData.

        Writes ``obsm[key_added]``, float32 (n_cells, D), and ``uns["spaf"]["embed"]`` with parameters, versions, genes
        found, time and memory. A cell without any gene of the vocabulary gets a row of NaN and is counted there.

        Parameters
        ----------
        adata
            Raw counts, cells x genes; X may be CSR, CSC, dense or backed. Genes are found by ``var_names``, the usual
            columns of symbols or Ensembl ids, whichever match most.
        method
            ``"cls"`` (state of the CLS token) or ``"gene"`` (mean over genes).
        tissue, condition, species, assay
            Context of all cells; where None, the ``obs`` column of that name. ``"unknown"`` is a value of its own.
        layer
            Layer with the counts; None is X.
        key_added
            Key in ``obsm``.
        token_budget
            Most tokens of a batch, padding included: the setting to lower when memory runs out. Results do not depend
            on it. None chooses by device and width.
        precision
            ``"fp32"``, or ``"bf16"`` for matrix products where the processor is fast at it.
        kernel
            Attention kernel by name; None lets `select_kernel` choose.
        min_gene_fraction
            Least share of genes that must match (see `Vocabulary.match`).
        strict
            Refuse cells without any gene of the vocabulary.
        progress
            Show a bar on stderr where that is a terminal.

        Raises
        ------
        InputError
            For too few or duplicated genes, values that are not counts, a context that is missing or not known.
        """
        started = time.perf_counter()
        settings = EmbeddingSettings(token_budget=token_budget, precision=precision, kernel=kernel)
        given = {"condition": condition, "tissue": tissue, "species": species, "assay": assay}
        context = context_ids(self.vocabulary, adata.obs, given)
        match = match_genes(adata.var, self.vocabulary, min_fraction=min_gene_fraction)
        reader = ExpressionReader(adata, match, self.vocabulary, layer=layer, max_genes=self.config.max_genes)
        embeddings = np.empty((adata.n_obs, self.config.width), dtype=np.float32)
        n_empty = 0
        with progress_bar("Embedding cells", adata.n_obs, shown=progress) as advance:
            for start in range(0, adata.n_obs, _ROWS_AT_A_TIME):
                rows = slice(start, min(start + _ROWS_AT_A_TIME, adata.n_obs))
                ranked = reader.rank(rows)
                empty = np.flatnonzero(ranked.n_genes == 0)
                if strict and empty.size:
                    name = adata.obs_names[start + empty[0]]
                    raise InputError(f"Cell {name!r} has no transcript of a gene of the model, and strict is set.")
                n_empty += empty.size
                embeddings[rows] = embed_cells(
                    self.network,
                    self.vocabulary,
                    ranked,
                    context[rows],
                    method=method,
                    settings=settings,
                    on_batch=advance,
                )
        if n_empty:
            logger.warning("%d of %d cells have no gene of the model; their rows are NaN.", n_empty, adata.n_obs)
        adata.obsm[key_added] = embeddings
        optional = {**given, "layer": layer, "kernel": kernel, "token_budget": token_budget}
        parameters = {
            "method": method,
            "key_added": key_added,
            "precision": precision,
            "min_gene_fraction": min_gene_fraction,
            "strict": strict,
            "device": str(next(self.network.parameters()).device),
            **{name: value for name, value in optional.items() if value is not None},
        }
        record = run_record("spaf-model embed", parameters, started=started)
        record |= {
            "model": self.source,
            "n_cells": adata.n_obs,
            "n_empty": n_empty,
            "n_genes_matched": len(match.matched),
            "genes_unmatched": np.array(match.unmatched, dtype=object),
        }
        adata.uns["spaf"] = {**adata.uns.get("spaf", {}), "embed": record}

    def embed_pairs(
        self,
        adata: anndata.AnnData,
        left: Sequence[str] | Sequence[int] | NDArray[np.integer],
        right: Sequence[str] | Sequence[int] | NDArray[np.integer],
        *,
        tissue: str | None = None,
        condition: str | None = None,
        species: str | None = None,
        assay: str | None = None,
        layer: str | None = None,
        token_budget: int | None = None,
        precision: Precision = "fp32",
        kernel: KernelName | None = None,
        min_gene_fraction: float = 0.5,
        progress: bool = False,
    ) -> PairEmbeddings:
        """Embed pairs of cells and say how likely they are neighbours.

        Swapping `left` and `right` changes nothing: a model that reads two cells as one sequence reads them in both
        orders and averages; one that reads cells apart (`SpatialFormerConfig.pair_input`) compares their states.

        Parameters
        ----------
        adata
            Raw counts, as for `embed`; nothing is written to it.
        left, right
            The two cells of each pair: cell names, or integer positions.
        tissue, condition, species, assay, layer, token_budget, precision, kernel, min_gene_fraction, progress
            As for `embed`.

        Returns
        -------
        PairEmbeddings
            Embeddings (n_pairs, D) and probabilities (n_pairs,).

        Raises
        ------
        InputError
            If left and right differ in length or name a cell that is not there, and as for `embed`.
        """
        settings = EmbeddingSettings(token_budget=token_budget, precision=precision, kernel=kernel)
        left_positions = _positions(adata, left, "left")
        right_positions = _positions(adata, right, "right")
        if left_positions.size != right_positions.size:
            raise InputError(
                f"left and right must have equal lengths, not {left_positions.size} and {right_positions.size}."
            )
        cells, inverse = np.unique(np.concatenate([left_positions, right_positions]), return_inverse=True)
        given = {"condition": condition, "tissue": tissue, "species": species, "assay": assay}
        context = context_ids(self.vocabulary, adata.obs.iloc[cells], given)
        match = match_genes(adata.var, self.vocabulary, min_fraction=min_gene_fraction)
        reader = ExpressionReader(adata, match, self.vocabulary, layer=layer, max_genes=self.config.max_genes)
        with progress_bar("Embedding pairs", left_positions.size, shown=progress) as advance:
            return embed_cell_pairs(
                self.network,
                self.vocabulary,
                reader.rank(cells),
                context,
                inverse[: left_positions.size],
                inverse[left_positions.size :],
                settings=settings,
                on_batch=advance,
            )

    def __repr__(self) -> str:
        return f"SpatialFormer({self.n_parameters / 1e6:.1f} M parameters, {self.vocabulary!r})"


def _positions(
    adata: anndata.AnnData, cells: Sequence[str] | Sequence[int] | NDArray[np.integer], side: str
) -> NDArray[np.int64]:
    values = np.asarray(cells)
    if values.ndim != 1:
        raise InputError(f"{side} must be one-dimensional, not of shape {values.shape}.")
    if values.size == 0:
        return np.zeros(0, dtype=np.int64)
    if values.dtype.kind in "iu":
        outside = values[(values < 0) | (values >= adata.n_obs)]
        if outside.size:
            raise InputError(f"{side} has the position {outside[0]}; the AnnData has {adata.n_obs} cells.")
        return values.astype(np.int64)
    if not adata.obs_names.is_unique:
        raise InputError("Cells cannot be named, because obs_names are not unique; give integer positions.")
    positions = adata.obs_names.get_indexer(values.astype(str))
    if (positions < 0).any():
        missing = values[positions < 0]
        raise InputError(
            f"{side} names cells that are not in the AnnData ({missing.size}), such as {str(missing[0])!r}."
        )
    return np.asarray(positions, dtype=np.int64)
