"""The SpatialFormer as users meet it: embeddings of cells and of pairs, co-localised genes, attention between genes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_model._console import progress_bar
from spaf_model._record import keep_record
from spaf_model.errors import InputError
from spaf_model.inputs import Cells, CellTables, table_of, tables_of
from spaf_model.model import Model
from spaf_model.options import CallOptions, KernelOptions, ReadingOptions, SharedOptions
from spaf_model.outputs import check_key
from spaf_model.pairs import CellNames, pair_positions, sides_of
from spaf_model.shipped import SPATIALFORMER_STARTER
from spaf_model.spatialformer.config import SpatialFormerConfig
from spaf_model.spatialformer.embedding import embed_cell_pairs
from spaf_model.spatialformer.gene_attention import average_gene_attention, check_reads_together
from spaf_model.spatialformer.gene_pairs import gene_pair_matrix
from spaf_model.spatialformer.judged import PairProbability, gene_pair_logits, name_hidden_genes, pair_scorer
from spaf_model.spatialformer.network import SpatialFormerNetwork
from spaf_model.spatialformer.perturbation import Perturbation, slide_offsets
from spaf_model.spatialformer.tokeniser import SPECIAL_TOKENS, SpatialFormerTokeniser
from spaf_model.vocabulary import CONTEXT_KINDS

if TYPE_CHECKING:
    import anndata

    from spaf_model.cell_source import CellSource
    from spaf_model.counts import CellCounts
    from spaf_model.results import GeneAttention, GeneChange, HiddenGenes, PairEmbeddings, PerturbedPair
    from spaf_model.vocabulary import Vocabulary

COLOCALIZATION_KEY = "colocalization_pred"


class SpatialFormer(Model[SpatialFormerConfig, SpatialFormerNetwork]):
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
        If `config.n_tokens` is not the size of the vocabulary, or the vocabulary lacks a special token.

    Examples
    --------
    Embed the cells of a slide with a trained model::

        model = SpatialFormer.from_pretrained("starter-1")
        model.embed(adata, tissue="Breast", condition="Disease", species="Human", assay="Xenium")
        adata.obsm["X_SpaF"]
    """

    family = "spatialformer"
    Config = SpatialFormerConfig
    methods = ("cls", "gene")
    shipped = SPATIALFORMER_STARTER
    limits = (
        "For tissue of your own use the preset `tissue`: on held-out thirds of three slides it told neighbours from "
        "cells far away better than this architecture did in any time that was tried on one core "
        "(docs/models_of_space.md).",
    )

    @classmethod
    def fitting_config(cls, config: SpatialFormerConfig, vocabulary: Vocabulary) -> SpatialFormerConfig:
        """Return the configuration with the number of tokens of the vocabulary."""
        for name in SPECIAL_TOKENS:
            vocabulary.special_id(name)
        if empty := [kind for kind in CONTEXT_KINDS if not vocabulary.context[kind]]:
            raise InputError(f"A SpatialFormer reads the {empty[0]} of a cell, and the vocabulary names none.")
        if config.n_tokens is None:
            config = dataclasses.replace(config, n_tokens=vocabulary.n_tokens)
        if config.n_tokens != vocabulary.n_tokens:
            raise InputError(f"config.n_tokens is {config.n_tokens}, but the vocabulary has {vocabulary.n_tokens}.")
        return config

    def _set_parts(self, config: SpatialFormerConfig, vocabulary: Vocabulary) -> None:
        super()._set_parts(config, vocabulary)
        self.reads_whole_slides = self.config.reads_whole_slides

    def make_network(self) -> SpatialFormerNetwork:
        """Make the network of the configuration, with random weights."""
        return SpatialFormerNetwork(self.config)

    @property
    def tokeniser(self) -> SpatialFormerTokeniser:
        """What ranks the genes of cells and makes sequences of them."""
        return SpatialFormerTokeniser(self.vocabulary, self.config.max_genes, self.config.gene_values)

    def embed_pairs(
        self,
        adata: Cells,
        left: CellNames,
        right: CellNames,
        *,
        both_orders: bool = True,
        **options: Unpack[KernelOptions],
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
        **options
            The shared ones, as for `embed`.

        Returns
        -------
        PairEmbeddings
            Embeddings (n_pairs, D) and probabilities (n_pairs,); NaN where a cell has no gene of the vocabulary.

        Raises
        ------
        InputError
            If left and right differ in length or name a cell that is not there, and as for `embed`.
        """
        call = CallOptions.of(options)
        table = table_of(adata, call.table_key)
        source, first, second = self._pair_source(table, left, right, call.reading)
        counts = source.read()
        cells = self.tokeniser(counts)
        with progress_bar("Embedding pairs", first.size, shown=call.progress) as advance:
            return embed_cell_pairs(
                self.network,
                self.vocabulary,
                cells.ranked,
                cells.context,
                first,
                second,
                both_orders=both_orders,
                slides=counts.slides,
                settings=call.settings,
                on_batch=advance,
            )

    def pair_scorer(self, cells: CellCounts, states: NDArray[np.float32] | None = None) -> PairProbability:
        """Return the probability that two cells are neighbours as a function of their positions; see `ScoresPairs`."""
        return pair_scorer(self.network, self.tokeniser(cells), cells.slides, states)

    def name_hidden_genes(self, cells: CellCounts, hidden: NDArray[np.bool_]) -> HiddenGenes:
        """Hide entries of counts and ask which genes they were; see `NamesHiddenGenes`."""
        return name_hidden_genes(self.network, self.tokeniser(cells), cells, hidden)

    def gene_pair_logits(
        self, cells: CellCounts, of_cell: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the logits that pairs of genes of cells lie together; see `RanksGenePairs`."""
        return gene_pair_logits(self.network, self.tokeniser(cells), of_cell, first, second)

    def predict_colocalization(
        self,
        adata: CellTables,
        threshold: float = 0.7,
        *,
        key_added: str = COLOCALIZATION_KEY,
        **options: Unpack[KernelOptions],
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
        **options
            The shared ones, as for `embed`.

        Raises
        ------
        InputError
            If the threshold is out of range, the head of the model is worth nothing, and as for `embed`.
        """
        if not self.config.colocalization_learnt:
            raise InputError(
                f"The model {self.source} has no head of gene co-localisation worth asking: it was not trained, or "
                "does not rank pairs of genes better than the smaller of their two counts does (see its card)."
            )
        call = CallOptions.of(options)
        tables = tables_of(adata, call.table_key)
        sources = [self._source(table, call.reading) for table in tables]
        check_key(key_added)
        parameters = {
            "threshold": float(threshold),
            "key_added": key_added,
            **self._parameters(call),
        }
        for table, source in zip(tables, sources, strict=True):
            started = time.perf_counter()
            with progress_bar("Predicting gene pairs", source.n_cells, shown=call.progress) as advance:
                result = gene_pair_matrix(
                    self.network,
                    self.tokeniser,
                    source,
                    n_genes=table.n_vars,
                    threshold=threshold,
                    settings=call.settings,
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
            record = self._record(
                table, "predict_colocalization", parameters, source, n_empty=source.n_empty, started=started
            )
            keep_record(table, "predict_colocalization", record)

    def attention(
        self,
        adata: Cells,
        pairs: pd.DataFrame | Sequence[Sequence[str]] | NDArray[np.generic],
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        *,
        minus_alibi: bool = True,
        **options: Unpack[SharedOptions],
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
        **options
            The shared ones, as for `embed`, but for the kernel: only one gives attention weights.

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
        call = CallOptions.of(options, SharedOptions)
        check_reads_together(self.network)  # before cells are read or their context is asked for
        table = table_of(adata, call.table_key)
        source, left, right = self._pair_source(table, *sides_of(pairs), call.reading)
        cells = self.tokeniser(source.read())
        with progress_bar("Reading attention", left.size, shown=call.progress) as advance:
            return average_gene_attention(
                self.network,
                self.vocabulary,
                cells.ranked,
                cells.context,
                left,
                right,
                genes=table.var_names.tolist(),
                columns=source.columns_of_tokens(self.vocabulary.n_tokens),
                layers=layers,
                heads=heads,
                minus_alibi=minus_alibi,
                settings=call.settings,
                on_batch=advance,
            )

    @property
    def compares_states(self) -> bool:
        """Whether all pairs of genes of two cells cost no reading beyond those of their single genes."""
        return self.config.pair_input == "separate"

    def perturb_pairs(
        self,
        adata: Cells,
        left: CellNames,
        right: CellNames,
        *,
        change: GeneChange = "delete",
        fold: float = 2.0,
        wanted: NDArray[np.bool_] | None = None,
        **options: Unpack[KernelOptions],
    ) -> Iterator[PerturbedPair]:
        """Yield pairs of cells in their order, each with what single genes and pairs of genes change.

        The score is the logit that the two cells are neighbours; of a model that reads both as one sequence, the mean
        of both orders.

        Parameters
        ----------
        adata
            Raw counts, as for `embed`; nothing is written to it.
        left, right
            The two cells of each pair: cell names, or integer positions.
        change
            ``"delete"``, ``"mask"`` (the token of the gene is hidden, and the ranks of all others stay) or ``"fold"``
            (its count is multiplied).
        fold
            By what.
        wanted
            (n_vars, n_vars), which pairs of a gene of the left and one of the right cell are wanted. It spares readings
            where two cells are one sequence; a model that compares states (`compares_states`) gives all pairs.
        **options
            The shared ones, as for `embed`.

        Raises
        ------
        InputError
            If left and right differ in length or name a cell that is not there, the change is none, genes are to be
            hidden from a model that reads their values, and as for `embed`.
        """
        call = CallOptions.of(options)
        table = table_of(adata, call.table_key)
        source, first, second = self._pair_source(table, left, right, call.reading)
        cells = source.read()
        of_slides = (cells.take(np.flatnonzero(cells.slides == slide)) for slide in range(len(source.slide_names)))
        tokeniser = self.tokeniser.knowing(of_slides)
        changed = Perturbation(self.network, tokeniser, change, fold, call.settings)
        centred = self.compares_states and self.config.pair_comparison == "cosine"
        offset = slide_offsets(self.network, tokeniser(cells), cells.slides, call.settings) if centred else None
        columns = source.columns_of_tokens(self.vocabulary.n_tokens)
        if wanted is not None and wanted.shape != (table.n_vars, table.n_vars):
            raise InputError(f"wanted must be of shape {(table.n_vars, table.n_vars)}, not {wanted.shape}.")

        def is_wanted(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
            assert wanted is not None
            found: NDArray[np.bool_] = wanted[np.ix_(columns[one], columns[other])]
            return found

        def found() -> Iterator[PerturbedPair]:
            asked = changed.pairs(cells, first, second, None if wanted is None else is_wanted, offset)
            with progress_bar("Changing genes", first.size, shown=call.progress) as advance:
                for pair, one, other in asked:
                    yield dataclasses.replace(pair, genes_left=columns[one], genes_right=columns[other])
                    if advance is not None:
                        advance(1)

        return found()

    def _pair_source(
        self, adata: anndata.AnnData, left: CellNames, right: CellNames, options: ReadingOptions
    ) -> tuple[CellSource, NDArray[np.int64], NDArray[np.int64]]:
        """Return the cells that occur in pairs, and where among them the two sides of each pair are.

        A model that reads whole slides gets all cells.
        """
        first, second = pair_positions(adata, left, right)
        if self.reads_whole_slides:
            return self._source(adata, options), first, second
        cells, inverse = np.unique(np.concatenate([first, second]), return_inverse=True)
        return self._source(adata, options, cells), inverse[: first.size], inverse[first.size :]
