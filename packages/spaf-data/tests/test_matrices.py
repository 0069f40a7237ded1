import anndata
import dask.array as da
import h5py
import numpy as np
import pytest
from scipy import sparse

from spaf_data import InputError, ReadOptions, read_counts
from spaf_data._matrices import as_csr, counts_as_csr


def table(matrix):
    adata = anndata.AnnData(matrix)
    adata.obsm["spatial"] = np.stack(np.divmod(np.arange(adata.n_obs), 10), axis=1) * 12.0
    return adata


COUNTS = np.random.default_rng(0).poisson(6, (100, 8)).astype(np.float32)


@pytest.mark.parametrize(
    "matrix",
    [
        COUNTS,
        COUNTS.astype(np.float16),
        COUNTS.astype(np.int64),
        sparse.csr_matrix(COUNTS),
        sparse.csc_matrix(COUNTS),
        da.from_array(COUNTS, chunks=(30, 5)),
        da.from_array(COUNTS, chunks=(30, 8)).map_blocks(sparse.csr_matrix),
    ],
    ids=["dense", "half", "integers", "csr", "csc", "dask", "dask of csr"],
)
def test_counts_in_every_matrix_that_anndata_allows(matrix):
    np.testing.assert_array_equal(read_counts(table(matrix), min_transcripts=1).X.toarray(), COUNTS)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_backed_counts(tmp_path, kind):
    table(kind(COUNTS)).write_h5ad(tmp_path / "slide.h5ad")
    backed = anndata.read_h5ad(tmp_path / "slide.h5ad", backed="r")
    np.testing.assert_array_equal(read_counts(backed, min_transcripts=1).X.toarray(), COUNTS)
    np.testing.assert_array_equal(as_csr(backed.X).toarray(), COUNTS)
    backed.file.close()


def test_counts_in_raw_are_named_and_read():
    adata = table(COUNTS)
    adata.raw = adata
    adata.X = np.log1p(adata.X)
    with pytest.raises(InputError, match=r"counts must be integers.*raw.*--layer"):
        read_counts(adata)
    found = read_counts(adata, min_transcripts=1, options=ReadOptions(layer="raw"))
    np.testing.assert_array_equal(found.X.toarray(), COUNTS)


def test_numbers_of_foreign_order_of_bytes(tmp_path):
    for matrix in (COUNTS.astype(">f4"), COUNTS.astype(">i4")):
        np.testing.assert_array_equal(as_csr(matrix).toarray(), COUNTS)
    table(COUNTS).write_h5ad(tmp_path / "slide.h5ad")
    with h5py.File(tmp_path / "slide.h5ad", "r+") as file:
        said = dict(file["X"].attrs)
        del file["X"]
        file.create_dataset("X", data=COUNTS.astype(">f4")).attrs.update(said)
    found = read_counts(tmp_path / "slide.h5ad", min_transcripts=1)
    np.testing.assert_array_equal(found.X.toarray(), COUNTS)


@pytest.mark.parametrize(("kind", "said"), [("<f2", "float16"), (">f4", ">f4")])
def test_sparse_files_of_types_that_cannot_be_read_are_one_sentence(tmp_path, kind, said):
    table(sparse.csr_matrix(COUNTS)).write_h5ad(tmp_path / "slide.h5ad")
    with h5py.File(tmp_path / "slide.h5ad", "r+") as file:
        values = file["X/data"][()]
        del file["X/data"]
        file["X"].create_dataset("data", data=values.astype(kind))
    with pytest.raises(
        InputError, match=rf"slide.h5ad has a sparse matrix of {said}, which cannot be read .* float32$"
    ):
        read_counts(tmp_path / "slide.h5ad")


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_true_and_false_are_no_counts(kind):
    adata = table(kind(COUNTS > 0))
    adata.layers["counts"] = COUNTS
    with pytest.raises(InputError, match=r"X of the AnnData says true and false, .*--layer"):
        read_counts(adata)
    assert read_counts(adata, options=ReadOptions(layer="counts")).X.sum() == COUNTS.sum()
    with pytest.raises(InputError, match="says true and false"):
        counts_as_csr(da.from_array(COUNTS > 0, chunks=(30, 5)))


def test_counts_that_half_precision_has_rounded_are_refused():
    counts = COUNTS.copy()
    counts[3, 2] = 2048
    np.testing.assert_array_equal(counts_as_csr(counts.astype(np.float16)).toarray(), counts)
    counts[3, 2] = 3001
    with pytest.raises(InputError, match="X of the AnnData is float16 and holds 3000, .* so counts were rounded"):
        read_counts(table(counts.astype(np.float16)))
