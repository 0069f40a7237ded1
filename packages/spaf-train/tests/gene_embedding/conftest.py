import pytest

from spaf_data import simulate_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A run of 300 cells and 60 genes, of which pairs share spots."""
    return simulate_bundle(tmp_path_factory.mktemp("simulated") / "bundle", n_cells=300, n_genes=60, seed=0, depth=120)
