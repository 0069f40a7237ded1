"""The model as users meet it: weights with their vocabulary, reading and writing AnnData."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from spaf_model._console import progress_bar
from spaf_model._record import run_record
from spaf_model.cell_source import CellSource, ReadingOptions
from spaf_model.config import SpatialFormerConfig
from spaf_model.distributed import shared_processes
from spaf_model.embedding import (
    EmbeddingMethod,
    EmbeddingSettings,
    PairEmbeddings,
    Precision,
    embed_cell_pairs,
    embed_cells,
)
from spaf_model.errors import InputError
from spaf_model.gene_attention import GeneAttention, average_gene_attention
from spaf_model.gene_pairs import gene_pair_matrix
from spaf_model.inputs import Cells, CellTables, table_of, tables_of
from spaf_model.kernels import KernelName
from spaf_model.model_directory import load_tensors, read_model_directory, write_model_directory
from spaf_model.outputs import check_key
from spaf_model.pairs import CellNames, pair_positions, sides_of
from spaf_model.shipped import STARTER, model_path
from spaf_model.spatialformer import SpatialFormerNetwork
from spaf_model.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

DEFAULT_KEY = "X_SpaF"
COLOCALIZATION_KEY = "colocalization_pred"
_LITTLE = 0.5  # of the counts and of the model's genes, below which a model hardly knows a panel


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
        adata: CellTables,
        *,
        method: EmbeddingMethod = "cls",
        tissue: str | None = None,
        condition: str | None = None,
        species: str | None = None,
        assay: str | None = None,
        layer: str | None = None,
        table_key: str | None = None,
        key_added: str = DEFAULT_KEY,
        token_budget: int | None = None,
        precision: Precision = "fp32",
        kernel: KernelName | None = None,
        min_gene_fraction: float = 0.5,
        strict: bool = False,
        distributed: bool = False,
        progress: bool = False,
    ) -> None:
        """Embed the cells of an AnnData.

        Writes ``obsm[key_added]``, float32 (n_cells, D), and ``uns["spaf"]["embed"]`` with parameters, versions, genes
        found, time and memory. A cell without any gene of the vocabulary gets a row of NaN and is counted there.

        Parameters
        ----------
        adata
            Raw counts, cells x genes; X may be CSR, CSC, dense or backed. Genes are found by ``var_names``, the usual
            columns of symbols or Ensembl ids, whichever match most. It may hold several slides. Also a SpatialData, or
            a list of either: each gets its own result.
        method
            ``"cls"`` (state of the CLS token) or ``"gene"`` (mean over genes).
        tissue, condition, species, assay
            Context of all cells; where None, the ``obs`` column of that name. ``"unknown"`` is a value of its own.
        layer
            Layer with the counts; None is X.
        table_key
            Table of a SpatialData; may be None where it has only one.
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
        distributed
            Share the cells among the processes of torch.distributed, which must all make this call; each gets the
            whole result.
        progress
            Show a bar on stderr where that is a terminal.

        Raises
        ------
        InputError
            For too few or duplicated genes, values that are not counts, a context that is missing or not known.
        """
        settings = EmbeddingSettings(token_budget=token_budget, precision=precision, kernel=kernel)
        options = ReadingOptions(
            tissue=tissue, condition=condition, species=species, assay=assay,
            layer=layer, min_gene_fraction=min_gene_fraction, strict=strict,
        )  # fmt: skip
        tables = tables_of(adata, table_key)
        sources = [self._source(table, options) for table in tables]
        check_key(key_added)
        parameters = {"method": method, "key_added": key_added, **self._parameters(options, settings)}
        with shared_processes(distributed) as processes:
            for table, source in zip(tables, sources, strict=True):
                started = time.perf_counter()
                embeddings = np.empty((source.n_cells, self.config.width), dtype=np.float32)
                start, stop = processes.share(source.n_cells)
                with progress_bar("Embedding cells", stop - start, shown=progress) as advance, processes.all_or_none():
                    for rows, ranked in source.chunks(start, stop):
                        embeddings[rows] = embed_cells(
                            self.network,
                            self.vocabulary,
                            ranked,
                            source.context[rows],
                            method=method,
                            settings=settings,
                            on_batch=advance,
                        )
                processes.collect(embeddings)
                n_empty = processes.total(source.n_empty)
                if n_empty:
                    logger.warning(
                        "%d of %d cells have no gene of the model; their rows are NaN.", n_empty, table.n_obs
                    )
                n_counts, n_read = (processes.total(n) for n in source.n_counts)
                _say_what_was_read(source, n_counts, n_read)
                table.obsm[key_added] = embeddings
                shared = {"n_processes": processes.n} if processes.n > 1 else {}
                self._write_record(
                    table, "embed", parameters | shared, source,
                    n_empty=n_empty, counts=(n_counts, n_read), started=started,
                )  # fmt: skip

    def embed_pairs(
        self,
        adata: Cells,
        left: CellNames,
        right: CellNames,
        *,
        tissue: str | None = None,
        condition: str | None = None,
        species: str | None = None,
        assay: str | None = None,
        layer: str | None = None,
        table_key: str | None = None,
        both_orders: bool = True,
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
        both_orders
            Without it, pairs are read once, the left cell first: half the work, and a result that depends on the order.
        tissue, condition, species, assay, layer, table_key, token_budget, precision, kernel, min_gene_fraction,
        progress
            As for `embed`.

        Returns
        -------
        PairEmbeddings
            Embeddings (n_pairs, D) and probabilities (n_pairs,); NaN where a cell has no gene of the vocabulary.

        Raises
        ------
        InputError
            If left and right differ in length or name a cell that is not there, and as for `embed`.
        """
        settings = EmbeddingSettings(token_budget=token_budget, precision=precision, kernel=kernel)
        options = ReadingOptions(
            tissue=tissue, condition=condition, species=species, assay=assay,
            layer=layer, min_gene_fraction=min_gene_fraction,
        )  # fmt: skip
        table = table_of(adata, table_key)
        source, first, second = self._pair_source(table, left, right, options)
        with progress_bar("Embedding pairs", first.size, shown=progress) as advance:
            return embed_cell_pairs(
                self.network,
                self.vocabulary,
                source.rank(),
                source.context,
                first,
                second,
                both_orders=both_orders,
                settings=settings,
                on_batch=advance,
            )

    def predict_colocalization(
        self,
        adata: CellTables,
        threshold: float = 0.7,
        *,
        tissue: str | None = None,
        condition: str | None = None,
        species: str | None = None,
        assay: str | None = None,
        layer: str | None = None,
        table_key: str | None = None,
        key_added: str = COLOCALIZATION_KEY,
        token_budget: int | None = None,
        precision: Precision = "fp32",
        kernel: KernelName | None = None,
        min_gene_fraction: float = 0.5,
        strict: bool = False,
        progress: bool = False,
    ) -> None:
        """Find the gene pairs that the model expects to lie together in each cell.

        Writes ``obsm[key_added]``, float32 CSR of cells x gene pairs with the probabilities that reach the threshold,
        and ``uns[key_added]`` with ``pairs`` (a row for each column: gene_a, gene_b, in the order of ``adata.var``),
        ``method`` (``"model"``), ``threshold`` and ``parameters``. That is the form in which `spaf_data.colocalize`
        writes measured pairs. ``uns["spaf"]["predict_colocalization"]`` has the record of the run.

        Only genes of the cell form pairs, and a pair has no order: its logit is the mean of both, since the heads of
        published models are not symmetric.

        Parameters
        ----------
        adata
            Raw counts, as for `embed`.
        threshold
            Least probability of a pair, above 0 and below 1. A focal loss in training leaves probabilities low, so a
            model may need a lower one than 0.7.
        key_added
            Key in ``obsm`` and ``uns``.
        tissue, condition, species, assay, layer, table_key, token_budget, precision, kernel, min_gene_fraction, strict,
        progress
            As for `embed`.

        Raises
        ------
        InputError
            If the threshold is out of range, and as for `embed`.
        """
        settings = EmbeddingSettings(token_budget=token_budget, precision=precision, kernel=kernel)
        options = ReadingOptions(
            tissue=tissue, condition=condition, species=species, assay=assay,
            layer=layer, min_gene_fraction=min_gene_fraction, strict=strict,
        )  # fmt: skip
        tables = tables_of(adata, table_key)
        sources = [self._source(table, options) for table in tables]
        check_key(key_added)
        parameters = {
            "threshold": float(threshold),
            "key_added": key_added,
            **self._parameters(options, settings),
        }
        for table, source in zip(tables, sources, strict=True):
            started = time.perf_counter()
            with progress_bar("Predicting gene pairs", source.n_cells, shown=progress) as advance:
                result = gene_pair_matrix(
                    self.network,
                    self.vocabulary,
                    source,
                    n_genes=table.n_vars,
                    threshold=threshold,
                    settings=settings,
                    on_batch=advance,
                )
            names = table.var_names.to_numpy()
            table.obsm[key_added] = result.probabilities
            table.uns[key_added] = {
                "pairs": pd.DataFrame({"gene_a": names[result.gene_a], "gene_b": names[result.gene_b]}),
                "method": "model",
                "threshold": float(threshold),
                "parameters": parameters,
            }
            self._write_record(
                table, "predict_colocalization", parameters, source, n_empty=source.n_empty, started=started
            )

    def attention(
        self,
        adata: Cells,
        pairs: pd.DataFrame | Sequence[Sequence[str]] | NDArray[np.generic],
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        *,
        minus_alibi: bool = True,
        tissue: str | None = None,
        condition: str | None = None,
        species: str | None = None,
        assay: str | None = None,
        layer: str | None = None,
        table_key: str | None = None,
        token_budget: int | None = None,
        precision: Precision = "fp32",
        min_gene_fraction: float = 0.5,
        progress: bool = False,
    ) -> GeneAttention:
        """Average the attention from gene to gene, between and within the two cells of pairs.

        Each pair is read in both orders, so swapping its cells swaps the directions and changes nothing else.

        Parameters
        ----------
        adata
            Raw counts, as for `embed`; nothing is written to it.
        pairs
            (n_pairs, 2) cell names or positions, or a table with the columns ``left`` and ``right``.
        layers, heads
            Which to average, from 0; None takes all.
        minus_alibi
            Subtract what the ALiBi bias alone would give at the same ranks. Without it, a mean over many heads may
            show little but how near two genes are in rank.
        tissue, condition, species, assay, layer, table_key, token_budget, precision, min_gene_fraction, progress
            As for `embed`.

        Returns
        -------
        GeneAttention
            Sparse gene x gene means and numbers of pairs for ``left_to_right``, ``right_to_left``, ``within_left`` and
            ``within_right``; its method ``table(direction)`` gives a sorted table. Pairs with a cell that has no gene
            of the vocabulary are left out and counted.

        Raises
        ------
        InputError
            If a cell, a layer or a head is not there, and as for `embed`.

        Examples
        --------
        Which genes of the left cells look at which genes of the right ones::

            attention = model.attention(adata, [["cell1", "cell2"], ["cell3", "cell4"]], layers=[8, 9])
            attention.table("left_to_right", min_pairs=2).head()
        """
        settings = EmbeddingSettings(token_budget=token_budget, precision=precision)
        options = ReadingOptions(
            tissue=tissue, condition=condition, species=species, assay=assay,
            layer=layer, min_gene_fraction=min_gene_fraction,
        )  # fmt: skip
        table = table_of(adata, table_key)
        source, left, right = self._pair_source(table, *sides_of(pairs), options)
        with progress_bar("Reading attention", left.size, shown=progress) as advance:
            return average_gene_attention(
                self.network,
                self.vocabulary,
                source.rank(),
                source.context,
                left,
                right,
                genes=table.var_names.tolist(),
                columns=source.columns_of_tokens(self.vocabulary.n_tokens),
                layers=layers,
                heads=heads,
                minus_alibi=minus_alibi,
                settings=settings,
                on_batch=advance,
            )

    def _source(
        self, adata: anndata.AnnData, options: ReadingOptions, cells: NDArray[np.int64] | None = None
    ) -> CellSource:
        return CellSource(adata, self.vocabulary, options, max_genes=self.config.max_genes, cells=cells)

    def _pair_source(
        self, adata: anndata.AnnData, left: CellNames, right: CellNames, options: ReadingOptions
    ) -> tuple[CellSource, NDArray[np.int64], NDArray[np.int64]]:
        """Return the cells that occur in pairs, and where among them the two sides of each pair are."""
        first, second = pair_positions(adata, left, right)
        cells, inverse = np.unique(np.concatenate([first, second]), return_inverse=True)
        return self._source(adata, options, cells), inverse[: first.size], inverse[first.size :]

    def _parameters(self, options: ReadingOptions, settings: EmbeddingSettings) -> dict[str, Any]:
        device = str(next(self.network.parameters()).device)
        set_ones = {name: value for name, value in dataclasses.asdict(settings).items() if value is not None}
        return {"device": device, **options.as_record(), **set_ones}

    def _write_record(
        self,
        adata: anndata.AnnData,
        command: str,
        parameters: Mapping[str, Any],
        source: CellSource,
        *,
        n_empty: int,
        started: float,
        counts: tuple[int, int] | None = None,
    ) -> None:
        n_counts, n_read = counts or source.n_counts
        record = run_record(f"spaf-model {command}", parameters, started=started)
        record |= {
            "model": self.source,
            "n_cells": adata.n_obs,
            "n_empty": n_empty,
            "n_genes_matched": len(source.match.matched),
            "gene_fraction": source.match.fraction,
            "model_gene_fraction": source.match.model_fraction,
            "count_fraction": n_read / max(n_counts, 1),
            "genes_joined": np.array(source.match.joined, dtype=object),
            "genes_unmatched": np.array(source.match.unmatched, dtype=object),
        }
        adata.uns["spaf"] = {**adata.uns.get("spaf", {}), command: record}

    def __repr__(self) -> str:
        return f"SpatialFormer({self.n_parameters / 1e6:.1f} M parameters, {self.vocabulary!r})"


def _say_what_was_read(source: CellSource, n_counts: int, n_read: int) -> None:
    """Log how much of the cells the model read, as a warning where it was little."""
    match, share = source.match, n_read / max(n_counts, 1)
    little = share < _LITTLE and match.model_fraction < _LITTLE
    logger.log(
        logging.WARNING if little else logging.INFO,
        "The model read %d of %d genes (%.0f %% of its own %d) and %.0f %% of the counts%s.",
        len(match.matched) + len(match.joined), match.token_ids.size, 100 * match.model_fraction, match.n_known,
        100 * share,
        ": it hardly knows this panel, so that its embeddings say little of the cells" if little else "",
    )  # fmt: skip
