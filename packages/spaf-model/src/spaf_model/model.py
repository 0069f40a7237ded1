"""The model as users meet it, of any family: weights with their vocabulary, reading and writing AnnData."""

from __future__ import annotations

import dataclasses
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, Unpack

import torch
from numpy.typing import NDArray

from spaf_model._record import keep_record, run_record
from spaf_model.cell_source import CellSource, say_what_was_read
from spaf_model.distributed import shared_processes
from spaf_model.embedding import WHOLE, embed_source, embed_tokenised, refuse_not_finite, write_parts
from spaf_model.errors import InputError
from spaf_model.family import ConfigT, NetworkT, Tokeniser, family_of
from spaf_model.inputs import CellTables, tables_of
from spaf_model.model_directory import (
    CONFIG_FILE,
    VOCABULARY_FILE,
    ModelDirectory,
    load_tensors,
    read_model_directory,
    write_model_directory,
)
from spaf_model.niche import NICHE, check_places
from spaf_model.options import CallOptions, EmbeddingSettings, KernelOptions, ReadingOptions
from spaf_model.outputs import check_key
from spaf_model.shipped import STARTER, model_to_read, shipped_models
from spaf_model.vocabulary import CONTEXT_KINDS, Vocabulary

if TYPE_CHECKING:
    import anndata
    import numpy as np

    from spaf_model.counts import CellCounts

logger = logging.getLogger(__name__)

DEFAULT_KEY = "X_SpaF"


class Model(ABC, Generic[ConfigT, NetworkT]):
    """Weights of a family with their vocabulary: what is the same whatever the family.

    A family derives from it, says what stands here without a value, and gives `tokeniser` and `make_network`; where an
    embedding is more than pooled states of batches, it overrides `embed_counts`.

    Parameters
    ----------
    config
        Sizes; what follows from the vocabulary may be left open.
    vocabulary
        Meaning of the token ids.
    seed
        Of the random weights; the global random state is left as it was.

    Raises
    ------
    InputError
        If configuration and vocabulary do not fit together.
    """

    family: ClassVar[str]  # its name in `config.json`
    Config: ClassVar[type[Any]]  # a `FamilyConfig`
    methods: ClassVar[tuple[str, ...]]  # ways to make one state of a cell; the first is the default
    parts: ClassVar[tuple[str, ...]] = ()  # names of the parts of an embedding that can be had apart
    limits: ClassVar[tuple[str, ...]] = ()  # what the card of any newly trained model of the family says
    reads_whole_slides: bool = False  # whether all cells of a table must be read together
    new_vocabulary: ClassVar[Callable[..., Vocabulary]] = Vocabulary.build  # of a new model; takes what that takes
    has_own_niche: ClassVar[bool] = False  # whether `embed_counts` takes ``niche=True``; else `niche_states` makes it
    needed_context: ClassVar[tuple[str, ...]] = CONTEXT_KINDS  # that an embedding needs, of what the vocabulary knows
    shipped: ClassVar[str] = STARTER  # what `from_pretrained` reads where nothing is named

    def __init__(self, config: ConfigT, vocabulary: Vocabulary, seed: int = 0) -> None:
        self._set_parts(config, vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network: NetworkT = self.make_network()

    def _set_parts(self, config: ConfigT, vocabulary: Vocabulary) -> None:
        self.config: ConfigT = self.fitting_config(config, vocabulary)
        self.vocabulary = vocabulary
        self.card = ""
        self.source = "not saved"

    @classmethod
    def fitting_config(cls, config: ConfigT, vocabulary: Vocabulary) -> ConfigT:
        """Return the configuration with what follows from the vocabulary filled in.

        Raises
        ------
        InputError
            If the two do not fit together.
        """
        return config

    @abstractmethod
    def make_network(self) -> NetworkT:
        """Make the network of the configuration, with random weights."""

    def report(self) -> dict[str, dict[str, Any]]:
        """Return what training left to be told beside the card, by title; each is plain values with a ``sentence``."""
        return {}

    def network_of(self, tensors: Mapping[str, torch.Tensor], *, source: str) -> NetworkT:
        """Return the network of the tensors of a model directory; a family whose shapes the data chose overrides it.

        Raises
        ------
        InputError
            If tensors are missing, unexpected or misshapen; the sentence names the source and lists them.
        """
        with torch.device("meta"):
            network = self.make_network()
        load_tensors(network, tensors, source=source)
        return network

    @property
    @abstractmethod
    def tokeniser(self) -> Tokeniser[Any]:
        """What makes batches of counts."""

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, *, base_url: str | None = None, device: torch.device | str = "cpu"
    ) -> Self:
        """Read a model directory.

        Parameters
        ----------
        path
            The directory, or the name of a model that comes with the package (`shipped_models`), whose `card` says
            what it is good for. None: ``"starter"``, of a SpatialFormer ``"starter-1"``. ``NAME@REVISION``: a model of
            the web (`fetch_model`).
        base_url
            Where such a model is fetched from the first time.
        device
            Where the weights go.

        Raises
        ------
        InputError
            If it is not one, is damaged, of another family or a newer format, or its tensors do not fit its
            configuration.
        """
        path = cls.shipped if path is None else path
        directory = read_model_directory(model_to_read(path, base_url))
        try:
            family = family_of(directory.family)
        except InputError as error:
            raise InputError(f"{directory.path / CONFIG_FILE}: {error}") from error
        if not issubclass(family, cls):
            own = f", and of this family is {', '.join(shipped)}" if (shipped := shipped_models(cls.family)) else ""
            other = f"{path} is a model of the family {directory.family!r}, not of {cls.family!r}"
            raise InputError(f"{other}; spaf_model.load_model reads every family{own}.")
        return family._of_directory(directory, source=str(path)).to(device)

    @classmethod
    def _of_directory(cls, directory: ModelDirectory, *, source: str) -> Self:
        try:
            config = cls.Config.from_dict(directory.config)
        except InputError as error:
            raise InputError(f"{directory.path / CONFIG_FILE}: {error}") from error
        model = cls.__new__(cls)
        try:
            model._set_parts(config, directory.vocabulary)
        except InputError as error:
            raise InputError(f"{directory.path}: {CONFIG_FILE} and {VOCABULARY_FILE} do not fit: {error}") from error
        model.network = model.network_of(directory.tensors, source=source)
        model.network.eval()
        model.card = directory.card
        model.source = source
        return model

    def save_pretrained(self, path: str | Path) -> None:
        """Write a model directory, whole or not at all; an older model directory of that name is replaced."""
        write_model_directory(
            path, family=self.family, config=self.config.as_dict(), vocabulary=self.vocabulary,
            tensors=self.network.state_dict(), card=self.card,
        )  # fmt: skip

    def to(self, device: torch.device | str) -> Self:
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
        method: str | None = None,
        key_added: str = DEFAULT_KEY,
        parts: bool = False,
        niche: bool = False,
        distributed: bool = False,
        **options: Unpack[KernelOptions],
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
            How one state is made of a cell, one of `methods`; None takes the first. Of a SpatialFormer: ``"cls"``
            (state of the CLS token) or ``"gene"`` (mean over genes).
        key_added
            Key in ``obsm``.
        parts
            Also write the named `parts` of the embedding, each to ``obsm[f"{key_added}_{part}"]``.
        niche
            Also write the state of each cell with its surroundings at two scales, slide by slide and without training,
            to ``obsm[f"{key_added}_niche"]``; it needs ``obsm["spatial"]`` (see `niche_states`).
        distributed
            Share the cells among the processes of torch.distributed, which must all make this call; each gets the
            whole result.
        tissue, condition, species, assay
            Context of all cells; where None, the ``obs`` column of that name. ``"unknown"`` is a value of its own.
        layer, gene_names
            Layer with the counts, None is X; other names of genes, asked for those not found (`spaf_model.gene_names`).
        slide_key
            Column of ``obs`` with the slide of each cell, for niches and families that read whole slides; None takes
            ``slide`` or another usual name where it is there, and else all cells of a table are one slide.
        table_key
            Table of a SpatialData; may be None where it has only one.
        min_gene_fraction
            Least share of genes that must match, .5 by default (see `Vocabulary.match`).
        strict
            Refuse cells without any gene of the vocabulary.
        token_budget
            Most tokens of a batch, padding included: the setting to lower when memory runs out. Results do not depend
            on it. None chooses by device and width.
        precision
            ``"fp32"``, or ``"bf16"`` for matrix products where the processor is fast at it.
        kernel
            Attention kernel by name; None lets `select_kernel` choose.
        progress
            Show a bar on stderr where that is a terminal.

        Raises
        ------
        InputError
            For too few or duplicated genes, values that are not counts, a context that is missing or not known, a
            method or parts that the family does not have, or niches of cells without a place.
        """
        call = CallOptions.of(options)
        method = self._method(method)
        if parts and not self.parts:
            raise InputError(f"The embedding of the family {self.family!r} has no named parts: leave parts out.")
        if distributed and self.reads_whole_slides:
            raise InputError(f"The family {self.family!r} reads whole slides: it embeds in one process.")
        tables = tables_of(adata, call.table_key)
        sources = [self._source(table, call.reading, with_places=niche) for table in tables]
        check_key(key_added)
        parameters = {"method": method, "key_added": key_added, "niche": niche, **self._parameters(call)}
        made: list[tuple[anndata.AnnData, dict[str, NDArray[np.float32]], dict[str, Any]]] = []
        with shared_processes(distributed) as processes:
            for table, source in zip(tables, sources, strict=True):
                started = time.perf_counter()
                embeddings = embed_source(self, source, processes, method, call, niche=niche)
                n_empty = processes.total(source.n_empty)
                refuse_not_finite(table.obs_names.tolist(), embeddings[WHOLE], n_empty, self.source)
                if n_empty:
                    logger.warning(
                        "%d of %d cells have no gene of the model; their rows are NaN.", n_empty, table.n_obs
                    )
                n_counts, n_read = (processes.total(n) for n in source.n_counts)
                say_what_was_read(source.match, n_counts, n_read, model=self.source, n_placed=source.n_placed)
                shared = {"n_processes": processes.n} if processes.n > 1 else {}
                widths = {part: states.shape[1] for part, states in embeddings.items() if part != WHOLE}
                record = self._record(
                    table, "embed", parameters | shared, source,
                    n_empty=n_empty, counts=(n_counts, n_read), started=started,
                    more={"n_dimensions": widths} if widths else {},
                )  # fmt: skip
                made.append((table, embeddings, record))
        for table, embeddings, record in made:  # all or none of the tables
            wanted = [*(self.parts if parts else ()), *([NICHE] if niche else ())]
            write_parts(table, embeddings, key_added, parts=wanted, known=(*self.parts, NICHE))
            keep_record(table, "embed", record)

    def embed_counts(
        self,
        cells: CellCounts,
        *,
        method: str | None = None,
        settings: EmbeddingSettings | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Embed cells by their counts.

        Parameters
        ----------
        cells
            Some cells, or all of a table where the family reads whole slides.
        method
            One of `methods`; None takes the first.
        settings
            Batch size, precision and kernel.
        on_batch
            Called after each batch with the number of cells in it.

        Returns
        -------
        dict
            The embedding (n_cells, D) under ``""``, and each of `parts` under its name; NaN rows for cells without a
            gene.
        """
        method = self._method(method)
        prepared = self.tokeniser(cells)
        states = embed_tokenised(self.network, prepared, method=method, settings=settings, on_batch=on_batch)
        return {WHOLE: states}

    def _method(self, method: str | None) -> str:
        if method is not None and method not in self.methods:
            raise InputError(f"method must be one of {', '.join(self.methods)}, not {method!r}.")
        return method or self.methods[0]

    def _source(
        self,
        adata: anndata.AnnData,
        options: ReadingOptions,
        cells: NDArray[np.int64] | None = None,
        *,
        with_places: bool = False,
    ) -> CellSource:
        by_slide, needed = self.reads_whole_slides or with_places, self.needed_context
        source = CellSource(adata, self.vocabulary, options, cells=cells, by_slide=by_slide, needed_context=needed)
        if with_places:
            check_places(source.places, adata.obs_names.tolist())
        return source

    def _parameters(self, call: CallOptions) -> dict[str, Any]:
        device = str(self.network.device)
        set_ones = {name: value for name, value in dataclasses.asdict(call.settings).items() if value is not None}
        return {"device": device, **call.reading.as_record(), **set_ones}

    def _record(
        self,
        adata: anndata.AnnData,
        command: str,
        parameters: Mapping[str, Any],
        source: CellSource,
        *,
        n_empty: int,
        started: float,
        counts: tuple[int, int] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        facts = {"model": self.source, "family": self.family, "n_cells": adata.n_obs, "n_empty": n_empty}
        record = run_record(f"spaf-model {command}", parameters, started=started)
        return record | facts | source.as_record(counts) | dict(more or {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_parameters / 1e6:.1f} M parameters, {self.vocabulary!r})"
