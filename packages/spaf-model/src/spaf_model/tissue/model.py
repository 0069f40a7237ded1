"""The own-tissue model as users meet it: fitted on an AnnData in seconds to minutes, and embedding cells into it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from spaf_model._record import keep_record, run_record
from spaf_model.embedding import WHOLE, refuse_not_finite, write_parts
from spaf_model.errors import InputError
from spaf_model.expression import match_genes
from spaf_model.inputs import CellTables, tables_of
from spaf_model.joint import centred, size_of
from spaf_model.model_directory import write_model_directory
from spaf_model.niche import N_CELLS, N_SPOTS
from spaf_model.outputs import check_key
from spaf_model.shipped import model_to_read
from spaf_model.tissue.account import Account, card_of
from spaf_model.tissue.components import principal_components
from spaf_model.tissue.config import NetworkConfig, Preset, TissueConfig
from spaf_model.tissue.directory import FAMILY, parts_of, read_directory
from spaf_model.tissue.fitting import Fitted, fit_parts, size_of_place
from spaf_model.tissue.neighbours import reach_of
from spaf_model.tissue.niche import niche_state
from spaf_model.tissue.reading import SlideCells, genes_of, places_of, read_slides, slides_of, what_was_read
from spaf_model.tissue.standardise import PearsonResiduals, Rows, ZScores
from spaf_model.tissue.threads import check_threads, threads

if TYPE_CHECKING:
    from spaf_model.tissue.network import PlaceNetwork
    from spaf_model.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

DEFAULT_KEY = "X_SpaF"
Identity = Literal["auto", "slide", "fixed"]
_MLP = "network.mlp."


class TissueModel:
    """A model of one's own tissue: `fit` makes one, `from_pretrained` reads one.

    The embedding of a cell is its place (what it shares with the cells around it) beside its identity (what it
    expresses), both from the counts of the cell, standardised by its own slide.

    Examples
    --------
    Fit a slide, and embed it::

        model = TissueModel.fit(adata)
        model.embed(adata, parts=True)
        adata.obsm["X_SpaF"], adata.obsm["X_SpaF_place"], adata.obsm["X_SpaF_identity"]
        model.save_pretrained("model")
    """

    def __init__(
        self,
        config: TissueConfig,
        vocabulary: Vocabulary,
        *,
        closed: Rows,
        identity: Rows,
        network: PlaceNetwork | None = None,
    ) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.closed = closed
        self.identity = identity
        self.network = network
        self.card = ""
        self.account: Account | None = None  # what the fit read, chose and reached; None of a model that was read
        self.source = "not saved"

    @classmethod
    def fit(
        cls,
        adata: CellTables,
        preset: Preset = "tissue",
        *,
        slide_key: str | None = None,
        layer: str | None = None,
        table_key: str | None = None,
        radius: float | None = None,
        seed: int = 0,
        network: NetworkConfig | None = None,
        config: TissueConfig | None = None,
        shares: Mapping[str, float] | None = None,
        n_threads: int = 1,
        progress: bool = False,
    ) -> TissueModel:
        """Fit a model to slides.

        Parameters
        ----------
        adata
            Raw counts, cells x genes, with the places of the cells in ``obsm["spatial"]``; or a SpatialData, or a list
            of either. Genes of several are joined by Ensembl id, else by symbol; what a slide lacks counts as missing.
        preset
            ``"tissue"``: closed form and network. ``"neighbours"``: the closed form alone, in a second. Where fewer
            than 1,500 cells have a neighbour, ``"tissue"`` is the closed form too; where no cell has a place, only
            identity is fitted. `account` and card say so, and a warning does.
        slide_key
            Column of ``obs`` with the slide of each cell; None: ``"slide"`` or another usual name where there is one,
            else each AnnData is one slide.
        layer
            Layer with the counts; None is X.
        table_key
            Table of a SpatialData; may be None where it has only one.
        radius
            Of neighbours, in the unit of the coordinates. None: one spacing of a grid of spots, 30 um for cells; where
            the unit is hardly um, the 10 nearest.
        seed
            Equal seeds give equal bits on one machine with equal numbers of threads.
        network
            Sizes and training of the network; None: by the number of cells.
        config
            The whole recipe; preset, radius, seed and network are then taken from it.
        shares
            Share of each slide, by its name, in the variance that components are taken of; None: by cells.
        n_threads
            Of torch, and of the search for neighbours. Another number may change the last bits.
        progress
            Show a bar on stderr where that is a terminal.

        Raises
        ------
        InputError
            For values that are not counts, places that are not finite, columns, layers or options that are not there,
            or a slide with fewer than 10 cells with counts.
        """
        config = config or TissueConfig(preset=preset, seed=seed, radius=radius, network=network)
        check_threads(n_threads)
        tables = tables_of(adata, table_key)
        for table in tables:
            slides_of(table, slide_key)
            places_of(table)
        vocabulary = genes_of(tables)
        matches = [match_genes(table.var, vocabulary, min_fraction=0.0) for table in tables]
        slides = [
            slide
            for table, match in zip(tables, matches, strict=True)
            for slide in read_slides(table, vocabulary, match, layer=layer, slide_key=slide_key, with_places=True)
        ]
        n_cells = sum(table.n_obs for table in tables)
        with threads(n_threads):
            fitted = fit_parts(slides, config, n_cells=n_cells, shares=shares, n_threads=n_threads, progress=progress)
        return cls._of(fitted, vocabulary)

    @classmethod
    def _of(cls, fitted: Fitted, vocabulary: Vocabulary) -> TissueModel:
        model = cls(fitted.config, vocabulary, closed=fitted.closed, identity=fitted.identity, network=fitted.network)
        model.account = fitted.account
        model.card = card_of(fitted.config, fitted.account)
        for sentence in filter(None, (fitted.account.fallback, fitted.account.not_learnt)):
            logger.warning("%s", sentence)
        return model

    @classmethod
    def from_pretrained(cls, path: str | Path, *, base_url: str | None = None) -> TissueModel:
        """Read a model directory, or a model of the web: `path` and `base_url` as for `load_model`.

        Raises
        ------
        InputError
            If it is not one of this family, is damaged, of a newer format, or its tensors do not fit its configuration.
        """
        config, vocabulary, tensors, card = read_directory(model_to_read(path, base_url))
        closed, identity, network = parts_of(tensors, config, vocabulary, source=str(path))
        model = cls(config, vocabulary, closed=closed.numpy(), identity=identity.numpy(), network=network)
        model.card = card
        model.source = str(path)
        return model

    def save_pretrained(self, path: str | Path, *, half: bool = False) -> None:
        """Write a model directory, whole or not at all; an older model directory of that name is replaced.

        With `half` the tensors take 16 bits a number, which moves embeddings by about a thousandth.
        """
        tensors = {"closed": torch.from_numpy(self.closed), "identity": torch.from_numpy(self.identity)}
        if self.network is not None:
            state = self.network.mlp.state_dict()
            tensors |= {f"{_MLP}{name}": tensor for name, tensor in state.items()}
        write_model_directory(
            path,
            config=self.config.as_dict(),
            vocabulary=self.vocabulary,
            tensors={name: tensor.half() for name, tensor in tensors.items()} if half else tensors,
            card=self.card,
            family=FAMILY,
        )

    @property
    def n_parameters(self) -> int:
        """Number of weights, those of the closed form and the identity included."""
        mlp = 0 if self.network is None else sum(weight.numel() for weight in self.network.parameters())
        return self.closed.size + self.identity.size + mlp

    @property
    def n_place(self) -> int:
        """Dimensions of place, which come first in the joint embedding; 0 for a model without."""
        return int(self.closed.shape[1]) * (1 if self.network is None else 2)

    def embed(
        self,
        adata: CellTables,
        *,
        identity: Identity = "auto",
        parts: bool = False,
        niche: bool = False,
        slide_key: str | None = None,
        layer: str | None = None,
        table_key: str | None = None,
        key_added: str = DEFAULT_KEY,
        min_gene_fraction: float = 0.5,
        strict: bool = False,
        n_threads: int = 1,
    ) -> None:
        """Embed cells.

        Writes ``obsm[key_added]``, float32 (n_cells, place + identity), and ``uns["spaf"]["embed"]``; on request
        ``obsm[f"{key_added}_place"]`` and ``obsm[f"{key_added}_identity"]``, each of mean squared norm 1 on the slide,
        and ``obsm[f"{key_added}_niche"]``. A cell without counts of the model's genes gets rows of NaN and is counted.

        Parameters
        ----------
        adata
            Raw counts, cells x genes; X may be CSR, CSC, dense or backed. Also a SpatialData, or a list of either.
            Whole slides: counts are standardised by the cells of their slide. Places are not needed, except for
            `niche`.
        identity
            ``"slide"``: principal components of the slide that is embedded, best for it alone and not comparable with
            any other. ``"fixed"``: those of the slides that the model was fitted on, comparable across slides, and so
            are the sizes of the parts. ``"auto"``: ``"slide"`` for one slide by a model of one, else ``"fixed"``.
        parts
            Write place and identity on their own as well.
        niche
            Write the state of each cell with its surroundings too, which needs ``obsm["spatial"]``.
        slide_key, layer, table_key
            As for `fit`.
        key_added
            Key in ``obsm``.
        min_gene_fraction
            Least share of genes that must match (see `Vocabulary.match`).
        strict
            Refuse cells without any count of the model's genes.
        n_threads
            Of torch, and of the search for neighbours. Another number may change the last bits.

        Raises
        ------
        InputError
            For too few genes, values that are not counts, a slide of fewer than 10 cells with counts, components of
            the slide asked for several slides, or niches of cells without a place.
        """
        check_threads(n_threads)
        tables = tables_of(adata, table_key)
        n_slides = sum(len(set(slides_of(table, slide_key))) for table in tables)
        check_key(key_added)
        is_own = self.takes_own_identity(identity, n_slides)
        if niche:
            for table in tables:
                if places_of(table) is None:
                    raise InputError("niche=True needs the places of the cells in obsm['spatial'].")
        matches = [match_genes(table.var, self.vocabulary, min_fraction=min_gene_fraction) for table in tables]
        read = [
            read_slides(
                table, self.vocabulary, match, layer=layer, slide_key=slide_key, with_places=niche, strict=strict
            )
            for table, match in zip(tables, matches, strict=True)
        ]
        for table, slides, match in zip(tables, read, matches, strict=True):
            started = time.perf_counter()
            with threads(n_threads):
                named = self.named_parts(slides, table.n_obs, own_identity=is_own, niche=niche, workers=n_threads)
            whole = self.joined(named)
            n_empty = table.n_obs - sum(slide.rows.size for slide in slides)
            refuse_not_finite(table.obs_names.tolist(), whole, n_empty, self.source)
            wanted = [name for name in named if parts or name == "niche"]
            write_parts(table, {WHOLE: whole, **named}, key_added, parts=wanted, known=("place", "identity", "niche"))
            if n_empty:
                logger.warning(
                    "%d of %d cells have no count of the model's genes; their rows are NaN.", n_empty, table.n_obs
                )
            found = what_was_read(match, slides, model=self.source, has_places=places_of(table) is not None)
            parameters = {
                "key_added": key_added, "identity": "slide" if is_own else "fixed", "niche": niche,
                "min_gene_fraction": min_gene_fraction, **({} if layer is None else {"layer": layer}),
                **({} if slide_key is None else {"slide_key": slide_key}),
            }  # fmt: skip
            record = run_record("spaf-model embed", parameters, started=started) | {
                "model": self.source,
                "family": FAMILY,
                "n_cells": table.n_obs,
                "n_slides": len(slides),
                "n_empty": n_empty,
                **found,
                "n_dimensions": {name: part.shape[1] for name, part in named.items()},  # place, then identity
            }
            keep_record(table, "embed", record)

    def joined(self, named: Mapping[str, Rows]) -> Rows:
        """Return place and weighted identity side by side, of what `named_parts` gave."""
        assert self.config.identity_weight is not None
        if not self.n_place:
            return named["identity"].copy()
        return np.concatenate([named["place"], np.float32(self.config.identity_weight) * named["identity"]], axis=1)

    def takes_own_identity(self, identity: Identity, n_slides: int) -> bool:
        """Return whether the components of identity are those of the slide that is embedded, as `embed` describes.

        Raises
        ------
        InputError
            If they are asked for of several slides.
        """
        if identity not in get_args(Identity):
            raise InputError(f"identity must be one of {', '.join(get_args(Identity))}, not {identity!r}.")
        if identity == "slide" and n_slides > 1:
            raise InputError(
                f"identity='slide' gives each of the {n_slides} slides axes of its own, which cannot be compared; "
                "embed them one by one, or with identity='fixed'."
            )
        return identity == "slide" or (identity == "auto" and n_slides == 1 and self.config.n_slides == 1)

    def named_parts(
        self,
        slides: Sequence[SlideCells],
        n_cells: int,
        *,
        own_identity: bool,
        niche: bool = False,
        workers: int = 1,
    ) -> dict[str, Rows]:
        """Return the parts of all cells of a table, by name; rows of NaN for cells without counts.

        Parameters
        ----------
        slides
            Of the table.
        n_cells
            Of the table.
        own_identity
            Whether components of identity are those of the slide (see `takes_own_identity`).
        niche
            Whether the niche state is wanted too; it needs places.
        workers
            Threads of the search for neighbours.
        """
        result: dict[str, Rows] = {}
        own_size = own_identity or self.config.size_by_slide
        for slide in slides:
            residuals, zscores = PearsonResiduals(slide.counts), ZScores(slide.counts)
            of_slide = {"place": self._place(residuals, own_size=own_size)} if self.n_place else {}
            loadings = self.identity
            if own_identity:
                loadings = principal_components([zscores], self.config.n_identity, seed=self.config.seed)[0]
            of_slide["identity"] = self._scaled("identity", zscores.project(loadings), own_size=own_size)
            if niche:
                assert slide.coordinates is not None
                reach = reach_of(slide.coordinates, self.config.radius)
                k = N_SPOTS if reach is not None and reach.is_lattice else N_CELLS
                of_slide["niche"] = niche_state(
                    residuals, zscores, slide.coordinates, k=k, seed=self.config.seed, n_threads=workers
                )
            for name, part in of_slide.items():
                rows = result.setdefault(name, np.full((n_cells, part.shape[1]), np.nan, dtype=np.float32))
                rows[slide.rows] = part
        return result

    def _place(self, residuals: PearsonResiduals, *, own_size: bool) -> Rows:
        """Return the place of the cells of a slide: closed form and weighted network, together of size 1."""
        part = self._scaled("closed", residuals.project(self.closed), own_size=own_size)
        if self.network is not None:
            network = self._scaled("network", self.network.embed(residuals), own_size=own_size)
            part = np.concatenate([part, np.float32(self.config.network_weight) * network], axis=1)
        return part / np.float32(size_of_place(self.config))

    def _scaled(self, name: str, part: Rows, *, own_size: bool) -> Rows:
        """Return a part centred on its slide, over its size there or over that of the training slides."""
        part = centred(part)
        return part / np.float32(size_of([part]) if own_size else self.config.scales[name])

    def __repr__(self) -> str:
        network = "no network" if self.network is None else f"network of widths {self.network.widths}"
        return (
            f"TissueModel({self.vocabulary.gene_token_ids.size} genes, {self.n_place} dimensions of place, "
            f"{self.identity.shape[1]} of identity, {network})"
        )
