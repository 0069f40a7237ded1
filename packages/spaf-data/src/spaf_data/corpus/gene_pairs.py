"""Co-localised gene pairs of the cells of a block as bits.

Genes that are co-localised in a cell are among its genes, and most of them with most others. So a bit for each entry of
the counts says whether the gene is in any pair of its cell, and for each cell the upper triangle of a matrix of these
genes says which pairs there are: a quarter of the bytes that the codes of the genes take.
"""

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


def pack_gene_pairs(
    indptr: Indices, genes: npt.NDArray[np.int32], pair_indptr: Indices, pairs: npt.NDArray[np.int32]
) -> tuple[Bits, Bits] | None:
    """Return the bits of the entries and those of the triangles of all cells.

    Parameters
    ----------
    indptr, genes
        Cell c has the genes ``genes[indptr[c]:indptr[c + 1]]``.
    pair_indptr, pairs
        Cell c has the pairs ``pairs[pair_indptr[c]:pair_indptr[c + 1]]``, shape (n_pairs, 2).

    Returns
    -------
    The bits; None where `unpack_gene_pairs` would not give back the same pairs in the same order, as when a pair holds
    a gene that its cell does not have.
    """
    span = int(max(genes.max(initial=0), pairs.max(initial=0))) + 1
    entries = _owners(indptr) * span + genes
    wanted = _owners(pair_indptr)[:, None] * span + pairs
    if len(entries) == 0 or (np.diff(entries) <= 0).any():
        return None
    place = np.minimum(np.searchsorted(entries, wanted), len(entries) - 1)
    is_member = np.zeros(len(entries), bool)
    is_member[place] = True
    row_starts = _row_starts(indptr, is_member)
    first, second = (np.cumsum(is_member) - 1)[place].T
    bits = np.zeros(row_starts[-1], bool)
    position = row_starts[first] + second - first - 1
    if not ((position >= 0) & (position < len(bits))).all():
        return None
    bits[position] = True
    packed = np.packbits(is_member), np.packbits(bits)
    unpacked = unpack_gene_pairs(indptr, genes, *packed)
    same = np.array_equal(unpacked[0], pair_indptr) and np.array_equal(unpacked[1], pairs)
    return packed if same else None


def unpack_gene_pairs(
    indptr: Indices, genes: npt.NDArray[np.int32], members: Bits, triangles: Bits
) -> tuple[Indices, npt.NDArray[np.int32]]:
    """Return row pointers and gene pairs, sorted in each cell, from the bits of `pack_gene_pairs`.

    Raises
    ------
    ValueError
        If there are more or fewer bits than the cells need.
    """
    n_bytes = -(-len(genes) // 8)
    if members.shape != (n_bytes,):
        raise ValueError(f"{len(genes)} counts need {n_bytes} bytes of bits, not {members.shape}")
    is_member = np.unpackbits(members, count=len(genes)).astype(bool)
    row_starts = _row_starts(indptr, is_member)
    n_bytes = -(-int(row_starts[-1]) // 8)
    if triangles.shape != (n_bytes,):
        raise ValueError(f"{row_starts[-1]} possible gene pairs need {n_bytes} bytes of bits, not {triangles.shape}")
    position = np.flatnonzero(np.unpackbits(triangles, count=int(row_starts[-1])))
    first = np.searchsorted(row_starts, position, side="right") - 1
    second = first + 1 + position - row_starts[first]
    entries = np.flatnonzero(is_member)
    pairs = np.stack([genes[entries[first]], genes[entries[second]]], axis=1)
    pair_indptr = np.searchsorted(entries[first], indptr).astype(np.int64)
    return pair_indptr, pairs


def _owners(indptr: Indices) -> Indices:
    """Return the cell of each row."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def _row_starts(indptr: Indices, is_member: npt.NDArray[np.bool_]) -> Indices:
    """Return where the row of each member begins among the triangles of all cells, one after the other, and the end.

    The row of a gene holds a bit for each later gene of its cell, so that its length is the number of these.
    """
    before = np.concatenate(([0], np.cumsum(is_member)))
    ends = before[indptr[1:]][_owners(indptr)[is_member]]
    return np.concatenate(([0], np.cumsum(ends - 1 - np.arange(len(ends)))))
