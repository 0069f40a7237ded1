"""The block: a compact tile of one slide with its halo, and its bytes.

A block is stored as the magic number ``SPAFBLCK``, the length of the header (32 bits, little-endian), the header (JSON)
and the arrays one after the other, each as :mod:`spaf_data.corpus.arrays` describes. The header names them in order,
with their encodings and lengths.

``spaf-block`` 0.2.0 has co-localised gene pairs as bits (:mod:`spaf_data.corpus.gene_pairs`), 0.1.0 as codes of genes.
Blocks are written as 0.2.0, or as 0.1.0 where a pair holds a gene that its cell does not have.
"""

import json
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spaf_data.corpus.arrays import decode_array, encode_array
from spaf_data.corpus.gene_pairs import pack_gene_pairs, unpack_gene_pairs
from spaf_data.corpus.sizes import BlockSize, size_problem
from spaf_data.errors import InputError

_MAGIC = b"SPAFBLCK"
_PREFIX = struct.Struct("<8sI")
_TYPE = "spaf-block"

# Name of each stored array -> whether differences are stored. The order is the order in the file.
_CELL_ARRAYS = {"cell_ids": False, "coordinates": False, "indptr": True, "genes": True, "counts": False}
_ARRAYS = {
    "0.1.0": {**_CELL_ARRAYS, "colocalized_indptr": True, "colocalized": True, "positive_pairs": True},
    "0.2.0": {**_CELL_ARRAYS, "colocalized_genes": False, "colocalized_bits": False, "positive_pairs": True},
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """A compact tile of one slide and one split: its own cells first, then the halo.

    The halo holds the cells of neighbouring blocks that the positive pairs of this block reach. Every cell of a
    corpus is owned by exactly one block, and so is every positive pair. Counts are raw and genes are codes, so a
    block depends on no model.
    """

    key: str  # name of the block, unique in its corpus
    slide: str
    split: str  # "train", "validation", ...
    n_owned: int  # the first n_owned cells belong to the block
    cell_ids: npt.NDArray[np.str_]  # (n_cells,)
    coordinates: npt.NDArray[np.float32]  # (n_cells, 2), um
    indptr: npt.NDArray[np.int64]  # (n_cells + 1,): cell c has the entries indptr[c]:indptr[c + 1]
    genes: npt.NDArray[np.int32]  # (n_entries,): codes into Corpus.genes, ascending within a cell
    counts: npt.NDArray[np.int32]  # (n_entries,): transcripts, at least 1
    colocalized_indptr: npt.NDArray[np.int64]  # (n_cells + 1,), as indptr, for the rows of colocalized
    colocalized: npt.NDArray[np.int32]  # (n_edges, 2): codes of two genes a < b that sit together in the cell
    positive_pairs: npt.NDArray[np.int32]  # (n_pairs, 2): cells i < j of the block within the positive radius

    @property
    def n_cells(self) -> int:
        """Number of cells, halo included."""
        return len(self.cell_ids)

    @property
    def n_pairs(self) -> int:
        """Number of positive pairs, all owned by this block."""
        return len(self.positive_pairs)


def encode_block(block: Block) -> bytes:
    """Return the bytes of a block; equal blocks give equal bytes."""
    arrays = dict(vars(block))
    bits = None
    if _inconsistency(block) is None:
        bits = pack_gene_pairs(block.indptr, block.genes, block.colocalized_indptr, block.colocalized)
    if bits is not None:
        arrays["colocalized_genes"], arrays["colocalized_bits"] = bits
    version = "0.1.0" if bits is None else "0.2.0"
    records, payloads = {}, []
    for name, delta in _ARRAYS[version].items():
        records[name], payload = encode_array(arrays[name], delta=delta)
        payloads.append(payload)
    header = {
        "encoding-type": _TYPE,
        "encoding-version": version,
        "key": block.key,
        "slide": block.slide,
        "split": block.split,
        "n_owned": block.n_owned,
        "arrays": records,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([_PREFIX.pack(_MAGIC, len(text)), text, *payloads])


def decode_block(data: bytes, *, size: BlockSize | None = None) -> Block:
    """Return the block that :func:`encode_block` stored.

    Parameters
    ----------
    data
        The bytes.
    size
        What the manifest says of the block; arrays that claim to be larger are not inflated.

    Raises
    ------
    InputError
        If the bytes are no block, a block of a version that is not known here, damaged, or of another size.
    """
    try:
        magic, header_bytes = _PREFIX.unpack_from(data)
        start = _PREFIX.size + header_bytes
        header = json.loads(data[_PREFIX.size : start]) if magic == _MAGIC else None
    except (struct.error, ValueError) as error:
        raise InputError(f"the bytes are no block ({error}).") from error
    if header is None or header.get("encoding-type") != _TYPE:
        raise InputError("the bytes are no block.")
    version = header["encoding-version"]
    if version not in _ARRAYS:
        raise InputError(
            f"block {header.get('key')} has encoding version {version}, and this version reads {', '.join(_ARRAYS)}."
        )
    try:
        problem = size_problem({name: header["arrays"][name] for name in _ARRAYS[version]}, size)
        if problem:
            raise ValueError(problem)
        arrays = {}
        view = memoryview(data)
        for name in _ARRAYS[version]:
            record = header["arrays"][name]
            arrays[name] = decode_array(record, view[start : start + record["nbytes"]])
            start += record["nbytes"]
        if version == "0.2.0":
            bits = (arrays.pop(name) for name in ("colocalized_genes", "colocalized_bits"))
            rows = unpack_gene_pairs(arrays["indptr"], arrays["genes"], *bits)
            arrays["colocalized_indptr"], arrays["colocalized"] = rows
        block = Block(
            key=header["key"], slide=header["slide"], split=header["split"], n_owned=header["n_owned"], **arrays
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"block {header.get('key')} is damaged: {error}") from error
    problem = "bytes are left over" if start != len(data) else _inconsistency(block)
    if problem:
        raise InputError(f"block {block.key} is damaged: {problem}.")
    return block


def _inconsistency(block: Block) -> str | None:
    n_cells = block.n_cells
    if block.coordinates.shape != (n_cells, 2) or not 0 <= block.n_owned <= n_cells:
        return "the numbers of cells differ"
    for indptr, n_rows in ((block.indptr, len(block.genes)), (block.colocalized_indptr, len(block.colocalized))):
        if len(indptr) != n_cells + 1 or indptr[0] != 0 or indptr[-1] != n_rows or np.any(np.diff(indptr) < 0):
            return "row pointers do not fit"
    if len(block.genes) != len(block.counts):
        return "the numbers of genes and counts differ"
    if block.colocalized.shape[1:] != (2,) or block.positive_pairs.shape[1:] != (2,):
        return "pairs do not have two members"
    if block.n_pairs and block.positive_pairs.max() >= n_cells:
        return "a pair names a cell that the block does not hold"
    return None
