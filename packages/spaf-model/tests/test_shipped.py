from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from spaf_model import InputError, SpatialFormer, shipped_models
from spaf_model.shipped import model_path

CONTEXT = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}


def cells_of(model: SpatialFormer) -> anndata.AnnData:
    genes = [model.vocabulary.tokens[token] for token in model.vocabulary.gene_token_ids]
    counts = np.random.default_rng(0).poisson(0.5, (12, len(genes))).astype(np.float32)
    return anndata.AnnData(counts, var=pd.DataFrame(index=genes))


def test_the_starter_model_embeds_cells_and_compares_them() -> None:
    model = SpatialFormer.from_pretrained()
    assert model.source == "starter"
    adata = cells_of(model)
    model.embed(adata, **CONTEXT)
    assert np.isfinite(adata.obsm["X_SpaF"]).all()
    assert np.ptp(adata.obsm["X_SpaF"], axis=0).min() > 0
    pairs = model.embed_pairs(adata, np.arange(6), np.arange(6, 12), **CONTEXT)
    assert ((pairs.probabilities > 0) & (pairs.probabilities < 1)).all()


def test_the_starter_model_is_small_and_says_what_it_is() -> None:
    folder = model_path("starter")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8e6
    card = SpatialFormer.from_pretrained("starter").card
    for word in ("10x Genomics", "CC BY 4.0", "PCA", "Held out", "not good for"):
        assert word in card, word


def test_a_name_goes_before_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "starter").mkdir()
    assert "starter" in shipped_models()
    assert SpatialFormer.from_pretrained("starter").source == "starter"
    with pytest.raises(InputError, match="not a model directory"):
        SpatialFormer.from_pretrained("./starter")
    assert model_path(Path("starter")) == Path("starter")
