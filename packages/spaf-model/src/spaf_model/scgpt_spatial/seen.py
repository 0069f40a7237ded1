"""The counts around each cell of a source and on its slide, for models that join them (`mixing`)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from spaf_model.scgpt_spatial.mixing import Surroundings
from spaf_model.scgpt_spatial.neighbourhood import neighbourhood_weights

if TYPE_CHECKING:
    from spaf_model.cell_source import CellSource
    from spaf_model.scgpt_spatial.model import ScGPTSpatial


@dataclasses.dataclass(frozen=True)
class SeenAround:
    """What `Surroundings` is made of, for all cells of a source and the genes asked."""

    weights: sparse.csr_array  # (n_cells, n_cells), rows adding up to 1, or to 0
    counts: sparse.csr_array  # float32 (n_cells, n_genes)
    totals: NDArray[np.float32]  # (n_cells,)
    slides: NDArray[np.int64]  # (n_cells,)
    of_slides: NDArray[np.float64]  # (n_slides, n_genes), counts of all cells of a slide
    totals_of_slides: NDArray[np.float64]  # (n_slides,)
    measured: NDArray[np.bool_]  # (n_genes,)

    @classmethod
    def of(
        cls, model: ScGPTSpatial, source: CellSource, ids: NDArray[np.int64], *, among: NDArray[np.bool_]
    ) -> SeenAround:
        """Read the counts of all cells once.

        Parameters
        ----------
        model
            Its mix has the width of each technology.
        source
            The cells, with slides and places.
        ids
            Token ids of the genes.
        among
            Cells that may be neighbours.
        """
        assert source.places is not None
        assert model.network.neighbour_mix is not None
        n_slides = int(source.slides.max(initial=-1)) + 1
        parts, places = [], []
        totals = np.zeros(source.n_cells, dtype=np.float32)
        technologies = np.zeros(source.n_cells, dtype=np.int64)
        measured = np.zeros(ids.size, dtype=bool)
        for rows, cells in source.chunks():
            prepared = model.tokeniser(cells)
            totals[rows], technologies[rows] = prepared.totals, prepared.technologies
            measured = prepared.measured[ids]
            places.append(np.arange(source.n_cells)[rows])
            parts.append(sparse.csr_array(cells.matrix())[:, ids])
        counts = sparse.csr_array(sparse.vstack(parts)).astype(np.float32)[np.argsort(np.concatenate(places))]
        of_slides = np.zeros((n_slides, ids.size))
        totals_of_slides = np.zeros(n_slides)
        for slide in range(n_slides):
            of_slides[slide] = counts[source.slides == slide].sum(axis=0)
            totals_of_slides[slide] = totals[source.slides == slide].sum(dtype=np.float64)
        with torch.no_grad():
            rows_of = torch.from_numpy(technologies).to(model.network.device)
            width = model.network.neighbour_mix.widths(rows_of).cpu().numpy().astype(np.float64)
        weights = neighbourhood_weights(
            source.places, source.slides, n_neighbours=model.config.n_neighbours, width=width, among=among
        )
        return cls(
            weights=weights,
            counts=counts,
            totals=totals,
            slides=source.slides,
            of_slides=of_slides,
            totals_of_slides=totals_of_slides,
            measured=measured,
        )

    @property
    def n_cells(self) -> int:
        """Cells of the source."""
        return int(self.slides.size)

    def around(self, cells: NDArray[np.int64], device: torch.device) -> Surroundings:
        """Return what is around some cells."""
        weights = self.weights[cells]
        own = self.counts[cells].toarray().astype(np.float64)
        slides = self.slides[cells]
        squares = np.asarray(weights.multiply(weights).sum(axis=1)).ravel()

        def sent(part: NDArray[np.floating]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)).to(device)

        return Surroundings(
            counts=sent((weights @ self.counts).toarray()),
            totals=sent(weights @ self.totals),
            n_effective=sent(np.divide(1.0, squares, out=np.zeros(squares.shape), where=squares > 0)),
            of_slide=sent(self.of_slides[slides] - own),
            slide_totals=sent(self.totals_of_slides[slides] - self.totals[cells]),
            measured=torch.from_numpy(self.measured).to(device),
        )


def means_of_others(states: NDArray[np.float32], slides: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean state of the other cells of the slide that have one, (n_cells, D); 0 where none has."""
    there: NDArray[np.bool_] = np.asarray(np.isfinite(states).all(axis=1))
    n_slides = int(slides.max(initial=-1)) + 1
    own = np.where(there[:, None], states, 0.0).astype(np.float64)
    sums = np.zeros((n_slides, states.shape[1]))
    np.add.at(sums, slides, own)
    others = np.bincount(slides[there], minlength=n_slides)[slides] - there
    means: NDArray[np.float32] = ((sums[slides] - own) / np.maximum(others, 1)[:, None]).astype(np.float32)
    return means
