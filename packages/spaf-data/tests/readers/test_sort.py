from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaf_data import InputError
from spaf_data.readers._sort import Chunk, sort_by_cell

# Few different values, so that rows often agree in all but one column, or in all.
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", "NegA"]),
        st.sampled_from([None, "9", "10", "007", "7"]),
        *[st.integers(0, 1)] * 3,
        st.sampled_from([0.0, 20.0, 30.0, float("nan")]),
        st.booleans(),
    ),
    max_size=60,
)


def chunks_of(rows, size, has_qv=True):
    """Return a source that yields the rows in chunks of `size`, each with its own order of names."""

    def source(with_positions):
        for start in range(0, len(rows), size):
            gene, cell, x, y, z, qv, nucleus = zip(*rows[start : start + size], strict=True)
            gene_names, cell_names = sorted(set(gene), reverse=True), list(dict.fromkeys(cell))
            position = [np.array(column, np.float32) for column in (x, y, z)]
            yield Chunk(
                gene=np.array([gene_names.index(name) for name in gene], np.int32),
                gene_names=gene_names,
                cell=np.array([cell_names.index(name) for name in cell], np.int32),
                cell_names=cell_names,
                qv=np.array(qv, np.float32) if has_qv else None,
                positions=tuple(position) if with_positions else None,
                in_nucleus=np.array(nucleus, bool),
            )

    return source


def sort(rows, size=7, has_qv=True, in_memory_bytes=1 << 30):
    return sort_by_cell(
        chunks_of(rows, size, has_qv),
        path=Path("run"),
        is_control=lambda name: name.startswith("Neg"),
        min_qv=20.0,
        in_memory_bytes=in_memory_bytes,
    )


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 70), st.booleans(), st.randoms(use_true_random=False))
def test_agrees_with_sorted_whatever_the_order_and_the_chunks(rows, size, has_qv, random):
    good = [row for row in rows if not row[0].startswith("Neg") and (not has_qv or row[5] >= 20)]
    kept = [row for row in good if row[1] is not None]
    shuffled = random.sample(rows, len(rows))
    if not kept:
        with pytest.raises(InputError, match="no transcript that is assigned"):
            sort(shuffled, size, has_qv)
        return
    found = sort(shuffled, size, has_qv, in_memory_bytes=random.choice([0, 1 << 30]))
    account = found.account
    assert (account.read, account.kept, account.unassigned) == (len(rows), len(kept), len(good) - len(kept))
    assert found.cells.tolist() == sorted({row[1] for row in kept}, key=lambda name: (int(name), name))
    assert found.genes == sorted({row[0] for row in rows} - {"NegA"})
    cell = found.cells[np.repeat(np.arange(len(found.cells)), np.diff(found.offsets))]
    columns = [cell, np.array(found.genes)[found.gene], found.x, found.y, found.z, found.in_nucleus]
    expected = [(row[1], row[0], *row[2:5], row[6]) for row in kept]
    if has_qv:
        columns.append(found.qv)
        expected = [(*row, source[5]) for row, source in zip(expected, kept, strict=True)]
    else:
        assert np.isnan(found.qv).all()
    rank = {name: place for place, name in enumerate(found.cells.tolist())}
    expected.sort(key=lambda row: (rank[row[0]], *row[1:]))
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
