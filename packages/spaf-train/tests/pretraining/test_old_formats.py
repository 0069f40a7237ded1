"""What earlier versions of this repository wrote is read as they read it.

Each folder of ``old_formats`` is named by the day of the version that wrote it: a corpus, a model trained on it for
four steps with the configuration of the run, and how that version embedded two cells.
"""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spaf_data import Corpus
from spaf_model import load_model
from spaf_train import read_config

OLD = Path(__file__).parent / "old_formats"


@pytest.fixture(params=sorted(path.name for path in OLD.iterdir()))
def old(request):
    return OLD / request.param


def test_corpus_is_read_to_the_last_block(old):
    corpus = Corpus(old / "corpus")
    blocks = [corpus.read(ref) for ref in corpus.block_refs()]
    assert sum(block.n_owned for block in blocks) == 92
    assert len(corpus.genes) == 24
    assert all(len(block.colocalized) > 0 for block in blocks)


def test_model_embeds_as_it_did(old):
    counts = sparse.csr_matrix((np.arange(48).reshape(2, 24) % 5).astype(np.float32))
    genes = pd.DataFrame(index=[f"G{number:02d}" for number in range(24)])
    adata = anndata.AnnData(counts, obs=pd.DataFrame(index=["a", "b"]), var=genes)
    load_model(old / "model").embed(adata, tissue="Breast", condition="Disease", species="Human", assay="Xenium")
    expected = np.array(json.loads((old / "embedding.json").read_text()))
    np.testing.assert_allclose(adata.obsm["X_SpaF"], expected, atol=1e-4)


def test_configuration_of_a_run_is_read(old):
    config = read_config(old / "config.toml")
    assert (config.model.width, config.run.steps, config.seed) == (16, 4, 3)


def test_corpus_says_that_it_knows_gene_pairs(old):
    corpus = Corpus(old / "corpus")
    assert [corpus.knows_gene_pairs(slide) for slide in corpus.slides] == [True]
