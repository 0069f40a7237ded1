import numpy as np
import pytest
import scanpy as sc
from scipy import sparse

from spaf_analysis import InputError, morans_i, spatially_variable_genes


def test_morans_i_equals_its_definition_and_scanpy():
    rng = np.random.default_rng(0)
    values = rng.poisson(0.7, (40, 3)).astype(float)
    values[:, 2] = 5.0
    graph = sparse.random(40, 40, density=0.15, random_state=1, format="csr")
    graph.setdiag(0)
    graph.eliminate_zeros()
    ours = morans_i(graph, sparse.csr_matrix(values))
    weights = graph.toarray()
    for gene in range(2):
        z = values[:, gene] - values[:, gene].mean()
        slow = sum(weights[i, j] * z[i] * z[j] for i in range(40) for j in range(40))
        assert ours[gene] == pytest.approx(40 / weights.sum() * slow / (z @ z))
    np.testing.assert_allclose(ours[:2], sc.metrics.morans_i(graph, values[:, :2].T.copy()))
    assert np.isnan(ours[2])


def test_genes_of_domains_come_first(tissue):
    ranked = spatially_variable_genes(tissue)
    assert set(ranked.index[:4]) == {"LEFT1", "LEFT2", "RIGHT1", "RIGHT2"}
    assert ranked["LEFT1"] > 0.4 > 0.2 > abs(ranked["BOTH1"])


def test_rare_genes_are_left_out(tissue):
    tissue.X = tissue.X.multiply([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]).tocsr()
    tissue.X.eliminate_zeros()
    assert "LEFT1" not in spatially_variable_genes(tissue)


def test_missing_graph(tissue):
    del tissue.obsp["spatial_connectivities"]
    with pytest.raises(InputError, match="obsp has no cell graph 'spatial_connectivities'; it has: spatial_distances"):
        spatially_variable_genes(tissue)
