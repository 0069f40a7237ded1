"""The own-tissue model behind the face of all families: `load_model`, `tl.embed` and ``spaf-model embed`` read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from spaf_model.embedding import WHOLE
from spaf_model.errors import InputError
from spaf_model.family import Network
from spaf_model.inputs import tables_of
from spaf_model.model import Model
from spaf_model.tissue.config import TissueConfig
from spaf_model.tissue.directory import parts_of
from spaf_model.tissue.model import Identity, TissueModel
from spaf_model.tissue.reading import split_slides

if TYPE_CHECKING:
    import torch

    from spaf_model.counts import CellCounts
    from spaf_model.inputs import CellTables
    from spaf_model.options import EmbeddingSettings
    from spaf_model.tissue.network import PlaceNetwork


class TissueNetwork(Network[Any]):
    """The tensors of a model: loadings of place and of identity, and the network beside the closed form."""

    closed: torch.Tensor
    identity: torch.Tensor

    def __init__(self, closed: torch.Tensor, identity: torch.Tensor, network: PlaceNetwork | None) -> None:
        super().__init__()
        self.register_buffer("closed", closed)
        self.register_buffer("identity", identity)
        self.network = network

    @property
    def width(self) -> int:
        """Dimensions of place and identity together."""
        return self.closed.shape[1] * (1 if self.network is None else 2) + self.identity.shape[1]

    def encode(self, batch: Any) -> torch.Tensor:
        """Cells are embedded by slides, not by batches: see `TissueFamily.embed_counts`."""
        raise NotImplementedError

    def pool(self, hidden: torch.Tensor, batch: Any, method: str) -> torch.Tensor:
        """As `encode`."""
        raise NotImplementedError


class TissueFamily(Model[TissueConfig, TissueNetwork]):
    """A `TissueModel` that was stored."""

    family = "tissue"
    Config = TissueConfig
    methods = ("auto", "slide", "fixed")  # what identity is made of, as `TissueModel.embed` says
    parts = ("place", "identity")
    reads_whole_slides = True
    has_own_niche = True

    def make_network(self) -> TissueNetwork:
        """Refuse: there are no random weights of such a model."""
        raise InputError("A tissue model is fitted, not made: TissueModel.fit.")

    def network_of(self, tensors: Mapping[str, torch.Tensor], *, source: str) -> TissueNetwork:
        """Return the network of stored tensors."""
        return TissueNetwork(*parts_of(tensors, self.config, self.vocabulary, source=source))

    @property
    def n_parameters(self) -> int:
        """Number of weights, those of the closed form and the identity included."""
        of_network = sum(weight.numel() for weight in self.network.parameters())
        return self.network.closed.numel() + self.network.identity.numel() + of_network

    @property
    def tokeniser(self) -> Any:
        """None: whole slides are standardised in `embed_counts`."""
        raise NotImplementedError

    def embed(self, adata: CellTables, *, method: str | None = None, **options: Any) -> None:
        """Embed cells as `Model.embed` does; where there are several tables, all by what the fit knows.

        The components of a slide of its own cannot be compared with those of another, so with several tables ``"auto"``
        is ``"fixed"``, and ``"slide"`` is refused.
        """
        n_tables = len(tables_of(adata, options.get("table_key")))
        if n_tables > 1:
            own = self._model().takes_own_identity(cast("Identity", self._method(method)), n_tables)
            assert not own, "refused for several"
            method = "fixed"
        super().embed(adata, method=method, **options)

    def save_pretrained(self, path: str | Path) -> None:
        """Write a model directory as `TissueModel` does: the closed form once, though the network holds it too."""
        model = self._model()
        model.card = self.card
        model.save_pretrained(path)

    def _model(self) -> TissueModel:
        return TissueModel(
            self.config, self.vocabulary, closed=self.network.closed.numpy(), identity=self.network.identity.numpy(),
            network=self.network.network,
        )  # fmt: skip

    def embed_counts(
        self,
        cells: CellCounts,
        *,
        method: str | None = None,
        settings: EmbeddingSettings | None = None,
        on_batch: Callable[[int], None] | None = None,
        niche: bool = False,
    ) -> dict[str, NDArray[np.float32]]:
        """Embed all cells of a table, slide by slide; their niche states too, as `TissueModel.embed` has them."""
        if not cells.n_cells:
            raise InputError("The AnnData has no cells.")
        model = self._model()
        counts = cells.matrix()[:, self.vocabulary.gene_token_ids]
        slides = split_slides(counts, np.array(cells.slide_names)[cells.slides], cells.places if niche else None)
        is_own = model.takes_own_identity(cast("Identity", self._method(method)), len(slides))
        named = model.named_parts(slides, cells.n_cells, own_identity=is_own, niche=niche)
        return {WHOLE: model.joined(named), **named}


FAMILY = TissueFamily
