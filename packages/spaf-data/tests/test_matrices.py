import anndata
import dask.array as da
import numpy as np
import pytest
from scipy import sparse

from spaf_data import InputError, ReadOptions, read_counts
from spaf_data._matrices import as_csr


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
