"""The loop over cells behind `subcellular_patterns`."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit

from spaf_data.patterns._moments import add_joins, add_offsets, add_sums
from spaf_data.patterns._places import distances, ranks
from spaf_data.readers._inside import is_inside

NUCLEAR, PERINUCLEAR, PERIPHERAL, RADIAL, POLARISED, PUNCTATE = range(6)


@njit(cache=True, nogil=True)
def fill_nuclei(x, y, offsets, segment_offsets, segments, inside):
    """Write which transcripts lie inside the nucleus of their own cell."""
    for cell in range(len(offsets) - 1):
        for i in range(offsets[cell], offsets[cell + 1]):
            inside[i] = is_inside(x[i], y[i], segment_offsets[cell], segment_offsets[cell + 1], segments)


@njit(cache=True, nogil=True)
def score_cells(
    x, y, gene, inside, offsets, wanted, radius, cell_offsets, cell_segments, nucleus_offsets, nucleus_segments,
    first_run, moments,
):  # fmt: skip
    """Fill `moments`, shape (6, runs, 4): see `add_sums`. A run is the transcripts of one gene in one cell.

    `wanted` says which of the six statistics to take. `first_run` are the runs of each cell; transcripts of a cell are
    sorted by gene.
    """
    for cell in range(len(offsets) - 1):
        start, stop = offsets[cell], offsets[cell + 1]
        n_runs = first_run[cell + 1] - first_run[cell]
        n = stop - start
        here = moments[:, first_run[cell] : first_run[cell + 1]]
        px, py = x[start:stop].astype(np.float64), y[start:stop].astype(np.float64)
        run = np.empty(n, np.int64)
        run[0] = 0
        for i in range(1, n):
            run[i] = run[i - 1] + (gene[start + i] != gene[start + i - 1])
        nuclear = inside[start:stop]
        runs = np.arange(n_runs)
        sums = np.empty((n_runs, 3))
        joins = np.empty(n_runs, np.int64)
        from_centre = (px - px.mean()) ** 2 + (py - py.mean()) ** 2
        if wanted[NUCLEAR]:
            size = np.zeros(n_runs, np.int64)
            for r in run:
                size[r] += 1
            add_sums(nuclear.astype(np.float64), run, size, runs, here[NUCLEAR])
        for part in range(2):
            rows = np.flatnonzero(nuclear == (part == 1))
            if len(rows) < 2:
                continue
            ux, uy, of_run = px[rows], py[rows], run[rows]
            size = np.zeros(n_runs, np.int64)
            for r in of_run:
                size[r] += 1
            runs = np.flatnonzero(size)
            if wanted[RADIAL]:
                add_sums(ranks(from_centre[rows]), of_run, size, runs, here[RADIAL])
            if wanted[POLARISED]:
                add_offsets(ux, uy, of_run, size, runs, sums, here[POLARISED])
            if wanted[PUNCTATE]:
                add_joins(ux, uy, of_run, size, runs, radius, joins, here[PUNCTATE])
            if part == 1:
                continue
            a, b = nucleus_offsets[cell], nucleus_offsets[cell + 1]
            if wanted[PERINUCLEAR] and b > a:
                add_sums(ranks(-distances(ux, uy, a, b, nucleus_segments)), of_run, size, runs, here[PERINUCLEAR])
            a, b = cell_offsets[cell], cell_offsets[cell + 1]
            if wanted[PERIPHERAL] and b > a:
                add_sums(ranks(-distances(ux, uy, a, b, cell_segments)), of_run, size, runs, here[PERIPHERAL])
