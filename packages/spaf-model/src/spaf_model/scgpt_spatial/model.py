"""The scGPT-spatial model as users meet it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model._console import progress_bar
from spaf_model.batching import token_budget_batches
from spaf_model.cell_source import CellSource
from spaf_model.embedding import inference
from spaf_model.errors import InputError
from spaf_model.inputs import Cells, table_of
from spaf_model.model import Model
from spaf_model.options import CallOptions, KernelOptions
from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig
from spaf_model.scgpt_spatial.experts import ExpertMixture, count_routes
from spaf_model.scgpt_spatial.expression import Asked, NicheExpression, expected_expression
from spaf_model.scgpt_spatial.network import ScGPTSpatialNetwork
from spaf_model.scgpt_spatial.routing import RoutingReport
from spaf_model.scgpt_spatial.tokeniser import (
    SPECIAL_TOKENS,
    TECHNOLOGY,
    ScGPTSpatialTokeniser,
    n_table_rows,
    technology_names,
)

if TYPE_CHECKING:
    import anndata

    from spaf_model.options import ReadingOptions
    from spaf_model.vocabulary import Vocabulary


class ScGPTSpatial(Model[ScGPTSpatialConfig, ScGPTSpatialNetwork]):
    """A scGPT-spatial model with its vocabulary.

    Embeddings need nothing but counts: the technology of a cell (context ``assay``) is read by the decoders alone.

    Parameters
    ----------
    config
        Sizes; what follows from the vocabulary may be None.
    vocabulary
        Meaning of the token ids. Its scale holds the population means of genes, and its assays are the technologies.
    seed
        Of the random weights; the global random state is left as it was.

    Raises
    ------
    InputError
        If configuration and vocabulary do not fit together, or the vocabulary lacks a special token.

    Examples
    --------
    Embed the cells of a slide::

        model = ScGPTSpatial.from_pretrained("my-model")
        model.embed(adata)
        adata.obsm["X_SpaF"]
    """

    family = "scgpt_spatial"
    Config = ScGPTSpatialConfig
    methods = ("cls", "gene", "value")
    needed_context = ()

    @classmethod
    def fitting_config(cls, config: ScGPTSpatialConfig, vocabulary: Vocabulary) -> ScGPTSpatialConfig:
        """Return the configuration with the numbers of tokens and technologies of the vocabulary."""
        for name in SPECIAL_TOKENS:
            vocabulary.special_id(name)
        found = {"n_tokens": n_table_rows(vocabulary), "n_technologies": len(technology_names(vocabulary))}
        for name, n in found.items():
            if getattr(config, name) not in (None, n):
                raise InputError(f"config.{name} is {getattr(config, name)}, but the vocabulary has {n}.")
        return dataclasses.replace(config, n_tokens=found["n_tokens"], n_technologies=found["n_technologies"])

    def report(self) -> dict[str, dict[str, Any]]:
        """Return what the experts are used for, where there are several and they were trained here."""
        record = self.config.routing_record
        if record is not None:
            return {
                "experts": {"sentence": f"Mutual information {record.get('mutual_information_bits')} bits.", **record}
            }
        routed = getattr(self.network.token_decoder, "routed", None)
        if routed is None or not bool((routed > 0).any()):
            return {}
        counts = routed.clamp(min=0.0).cpu().numpy()
        found = RoutingReport.of_counts(counts, technology_names(self.vocabulary) or ["any"])
        return {"experts": {**found.as_dict(), "sentence": found.sentence()}}

    def make_network(self) -> ScGPTSpatialNetwork:
        """Make the network of the configuration, with random weights."""
        return ScGPTSpatialNetwork(self.config)

    @property
    def tokeniser(self) -> ScGPTSpatialTokeniser:
        """What makes values of counts, and batches of cells."""
        return ScGPTSpatialTokeniser(self.vocabulary, self.config)

    def routing_report(self, adata: Cells, **options: Unpack[KernelOptions]) -> RoutingReport:
        """Return which experts the genes of cells are sent to, and what that tells of their technology.

        Parameters
        ----------
        adata
            Raw counts, as for `embed`; nothing is written to it. Technologies are read as for `expression`.
        **options
            The shared ones, as for `embed`.

        Raises
        ------
        InputError
            If the model has one expert, a technology is not known, no cell has a gene, and as for `embed`.
        """
        decoder = self.network.token_decoder
        if not isinstance(decoder, ExpertMixture):
            raise InputError("The model has one expert (n_experts is 1), so that there is nothing to report of routes.")
        call = CallOptions.of(options)
        source = self._decoded_source(table_of(adata, call.table_key), call.reading, by_slide=False)
        shape = (max(self.config.n_technologies or 0, 1), self.config.n_experts)
        counts = torch.zeros(shape, dtype=torch.float64)
        for _, cells in source.chunks():
            prepared = self.tokeniser(cells)
            occupied = np.flatnonzero(prepared.lengths)
            with inference(self.network, call.settings) as (device, budget):
                for rows in token_budget_batches(prepared.lengths[occupied], budget):
                    batch = prepared.batch(occupied[rows]).to(device)
                    hidden = self.network.encode(batch, kernel=call.settings.kernel)
                    is_gene = batch.mask
                    is_gene[:, 0] = False
                    tokens = self.network.tokens_to_decode(hidden, batch, is_gene)
                    counts += count_routes(decoder.routes(tokens), tokens, shape).cpu()
        return RoutingReport.of_counts(counts.numpy(), technology_names(self.vocabulary) or ["all"])

    def _decoded_source(self, table: anndata.AnnData, options: ReadingOptions, *, by_slide: bool) -> CellSource:
        """Return cells whose technologies the decoders can read."""
        needed = (TECHNOLOGY,) if self.config.n_technologies else ()
        return CellSource(table, self.vocabulary, options, by_slide=by_slide, needed_context=needed)

    @overload
    def expression(
        self, adata: Cells, genes: Sequence[str], *, niche: Literal[False] = False, gate: float | None = None,
        raw: bool = False, **options: Unpack[KernelOptions],
    ) -> NDArray[np.float32]: ...  # fmt: skip

    @overload
    def expression(
        self, adata: Cells, genes: Sequence[str], *, niche: Literal[True], gate: float | None = None,
        raw: bool = False, **options: Unpack[KernelOptions],
    ) -> NicheExpression: ...  # fmt: skip

    def expression(
        self,
        adata: Cells,
        genes: Sequence[str],
        *,
        niche: bool = False,
        gate: float | None = None,
        raw: bool = False,
        **options: Unpack[KernelOptions],
    ) -> NDArray[np.float32] | NicheExpression:
        """Return what the model expects of genes, measured or not.

        The state of each cell is asked by the decoder of cells. A model of counts gives means of its negative
        binomials; one of bins, as published, gives the count that stands at that bin in the cell itself.

        Parameters
        ----------
        adata
            Raw counts, as for `embed`; nothing is written to it. The technology of the cells is read where the model
            has technologies: ``assay``, or the ``obs`` column of that name.
        genes
            Names or Ensembl ids that the model knows.
        niche
            Also ask the cells around each cell, by the decoder of neighbourhoods: needs ``obsm["spatial"]``. It is kept
            apart, since what is around a cell may mislead about the cell.
        gate
            Weight of the niche in `NicheExpression.joined`; None takes that of the configuration.
        raw
            Give the numbers of the decoders as they are: bins, or logarithms beside the rate of the gene.
        **options
            The shared ones, as for `embed`.

        Returns
        -------
        array, or NicheExpression
            (n_cells, n_genes); NaN rows for cells without a gene of the model.

        Raises
        ------
        InputError
            If a gene is not known or asked for twice, a technology is not known, places are missing, the model has no
            decoder of neighbourhoods, and as for `embed`.
        """
        call = CallOptions.of(options)
        table = table_of(adata, call.table_key)
        asked = Asked.of(self.vocabulary, genes)
        gate = self.config.niche_gate if gate is None else gate
        if not 0.0 <= gate <= 1.0:
            raise InputError(f"gate must be from 0 to 1, not {gate!r}.")
        if niche and not self.config.neighbourhood_decoder:
            raise InputError("This model has no decoder of neighbourhoods (neighbourhood_decoder is false).")
        source = self._decoded_source(table, call.reading, by_slide=niche)
        if niche and source.places is None:
            raise InputError("niche=True needs the places of the cells in obsm['spatial'].")
        with progress_bar("Asking cells for genes", source.n_cells, shown=call.progress) as advance:
            found = expected_expression(
                self, source, asked, niche=niche, raw=raw, settings=call.settings, on_batch=advance
            )
        return NicheExpression(found[0], found[1], gate) if niche else found[0]
