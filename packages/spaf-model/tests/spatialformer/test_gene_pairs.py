import dataclasses
from unittest.mock import Mock

import anndata
import numpy as np
import pytest
import torch

import spaf_model
from spaf_model import (
    EmbeddingSettings,
    InputError,
    RankedCells,
    SpatialFormer,
    SpatialFormerConfig,
    TokenBatch,
    Vocabulary,
    colocalized_gene_pairs,
)
from spaf_model.spatialformer.tokeniser import N_PREFIX


def slow_pairs(
    model: SpatialFormer, ranked: RankedCells, context: np.ndarray, threshold: float
) -> dict[tuple[int, frozenset[int]], float]:
    """(cell, the two tokens) -> probability, one cell and one pair at a time."""
    found = {}
    network = model.network.eval()
    for cell in range(ranked.n_cells):
        batch = TokenBatch.from_cells(ranked, context, np.array([cell]), model.vocabulary)
        with torch.no_grad():
            logits = network.colocalization_logits(network.encode(batch), batch)[0].double()
        genes = ranked.tokens[ranked.indptr[cell] : ranked.indptr[cell + 1]]
        for i in range(genes.size):
            for j in range(i + 1, genes.size):
                logit = (logits[N_PREFIX + i, N_PREFIX + j] + logits[N_PREFIX + j, N_PREFIX + i]) / 2
                probability = float(logit.sigmoid())
                if probability >= threshold:
                    found[cell, frozenset((int(genes[i]), int(genes[j])))] = probability
    return found


@pytest.mark.parametrize("head", ["symmetric", "bilinear", "additive"])
@pytest.mark.parametrize("budget", [1, 90, 10_000])
def test_agrees_with_one_pair_at_a_time(
    head: str, budget: int, vocabulary: Vocabulary, ranked: RankedCells, context: np.ndarray, randomised: object
) -> None:
    config = SpatialFormerConfig(width=32, n_layers=1, n_heads=2, colocalization_head=head, colocalization_rank=8)  # type: ignore[arg-type]
    model = SpatialFormer(config, vocabulary, seed=1)
    randomised(model.network)  # type: ignore[operator]
    threshold = 0.6
    expected = slow_pairs(model, ranked, context, threshold)
    settings = EmbeddingSettings(token_budget=budget)
    found = colocalized_gene_pairs(model.network, vocabulary, ranked, context, threshold=threshold, settings=settings)
    result = {
        (int(cell), frozenset((int(a), int(b)))): float(p)
        for cell, a, b, p in zip(found.cells, found.first, found.second, found.probabilities, strict=True)
    }
    assert len(result) == found.cells.size
    assert 20 < len(expected) < 4_000
    # A probability within rounding of the threshold may fall on either side.
    assert all(
        abs(expected.get(key, result.get(key, 1.0)) - threshold) < 1e-5 for key in expected.keys() ^ result.keys()
    )
    both = sorted(expected.keys() & result.keys(), key=str)
    np.testing.assert_allclose([result[key] for key in both], [expected[key] for key in both], atol=1e-5)
    assert (np.diff(found.cells) >= 0).all()


@pytest.fixture
def planted(model: SpatialFormer, monkeypatch: pytest.MonkeyPatch) -> SpatialFormer:
    """A model that finds GENE20 and GENE2 together, in this order alone, wherever they rank."""
    one, other = (model.vocabulary.tokens.index(name) for name in ("GENE20", "GENE2"))

    def logits(hidden: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        together = (batch.ids == one).unsqueeze(-1) & (batch.ids == other).unsqueeze(-2)
        return torch.where(together, 12.0, -4.0)

    monkeypatch.setattr(model.network, "colocalization_logits", logits)
    return model


def test_pairs_have_the_names_of_their_genes(planted: SpatialFormer, adata: anndata.AnnData) -> None:
    # The table has its genes in another order than the vocabulary, and one more that the model does not know.
    order = np.random.default_rng(2).permutation(40)
    shuffled = adata[:, order].copy()
    shuffled.var_names = [name if name != "GENE5" else "unheard of" for name in shuffled.var_names]
    planted.predict_colocalization(shuffled, 0.7)
    pairs = shuffled.uns["colocalization_pred"]["pairs"]
    assert {frozenset(pair) for pair in pairs.to_numpy().tolist()} == {frozenset(("GENE2", "GENE20"))}
    positions = shuffled.var_names.get_indexer(pairs.to_numpy()[0])
    assert positions[0] < positions[1]
    counts = shuffled.to_df()
    has_both = ((counts["GENE2"] > 0) & (counts["GENE20"] > 0)).to_numpy()
    assert 3 < has_both.sum() < 57
    matrix = shuffled.obsm["colocalization_pred"]
    assert matrix.shape == (60, 1)
    np.testing.assert_array_equal(matrix.toarray()[:, 0] > 0, has_both)
    # One order has the logit 12, the other -4: the mean of both is 4.
    np.testing.assert_allclose(matrix.data, 1 / (1 + np.exp(-4.0)), atol=1e-6)


def test_context_and_special_tokens_form_no_pair(
    model: SpatialFormer, ranked: RankedCells, context: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = Mock(side_effect=lambda hidden, batch: torch.full((*batch.ids.shape, batch.ids.shape[1]), 5.0))
    monkeypatch.setattr(model.network, "colocalization_logits", everything)
    found = colocalized_gene_pairs(model.network, model.vocabulary, ranked, context)
    n = ranked.n_genes
    np.testing.assert_array_equal(np.bincount(found.cells, minlength=30), n * (n - 1) // 2)
    assert np.isin(np.concatenate([found.first, found.second]), model.vocabulary.gene_token_ids).all()
    assert (found.first != found.second).all()


def test_result_is_in_the_form_of_measured_pairs_and_survives_a_file(
    model: SpatialFormer, adata: anndata.AnnData, tmp_path: object
) -> None:
    model.predict_colocalization(adata, threshold=0.6)
    record = adata.uns["colocalization_pred"]
    assert {"pairs", "method", "threshold", "parameters"} <= set(record)
    assert list(record["pairs"].columns) == ["gene_a", "gene_b"]
    matrix = adata.obsm["colocalization_pred"]
    assert matrix.format == "csr"
    assert matrix.dtype == np.float32
    assert matrix.has_sorted_indices
    assert matrix.shape == (60, len(record["pairs"]))
    assert 0.6 <= matrix.data.min() < matrix.data.max() <= 1
    a, b = (adata.var_names.get_indexer(record["pairs"][column]) for column in ("gene_a", "gene_b"))
    keys = a * 40 + b
    assert (a < b).all()
    assert (np.diff(keys) > 0).all()
    cell, pair = matrix.nonzero()
    dense = adata.X.toarray() > 0
    assert (dense[cell, a[pair]] & dense[cell, b[pair]]).all()
    adata.write_h5ad(f"{tmp_path}/a.h5ad")
    again = anndata.read_h5ad(f"{tmp_path}/a.h5ad")
    assert (again.obsm["colocalization_pred"] != matrix).nnz == 0
    assert again.uns["spaf"]["predict_colocalization"]["parameters"]["threshold"] == 0.6


def test_order_chunks_and_batches_change_nothing(
    model: SpatialFormer, adata: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled = adata[np.random.default_rng(0).permutation(60)].copy()
    model.predict_colocalization(adata, 0.5)
    monkeypatch.setattr("spaf_model.cell_source._ROWS_AT_A_TIME", 11)
    model.predict_colocalization(shuffled, 0.5, token_budget=70, kernel="explicit")
    names = adata.uns["colocalization_pred"]["pairs"].agg("|".join, axis=1).tolist()
    others = shuffled.uns["colocalization_pred"]["pairs"].agg("|".join, axis=1).tolist()
    shared = sorted(set(names) & set(others))
    assert len(shared) > 0.99 * max(len(names), len(others))
    one = adata.obsm["colocalization_pred"][:, [names.index(name) for name in shared]].toarray()
    other = shuffled[adata.obs_names].obsm["colocalization_pred"][:, [others.index(name) for name in shared]].toarray()
    both = (one > 0) & (other > 0)
    np.testing.assert_allclose(one[both], other[both], atol=1e-5)
    assert (np.abs(np.maximum(one, other)[(one > 0) ^ (other > 0)] - 0.5) < 1e-5).all()


def test_cells_without_genes_have_no_pairs(model: SpatialFormer, adata: anndata.AnnData) -> None:
    dense = adata.X.toarray()
    dense[7] = 0
    adata.X = dense
    model.predict_colocalization(adata, 0.5)
    assert adata.obsm["colocalization_pred"][7].nnz == 0
    assert adata.uns["spaf"]["predict_colocalization"]["n_empty"] == 1
    with pytest.raises(InputError, match="'cell7' has no transcript"):
        model.predict_colocalization(adata, strict=True)
    model.predict_colocalization(adata[[7]].copy())


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, 7.0, float("nan")])
def test_threshold_out_of_range(threshold: float, model: SpatialFormer, adata: anndata.AnnData) -> None:
    with pytest.raises(InputError, match="threshold must be above 0 and below 1"):
        model.predict_colocalization(adata, threshold)
    assert "colocalization_pred" not in adata.obsm


def test_tl_takes_a_model_or_a_path(model: SpatialFormer, adata: anndata.AnnData, tmp_path: object) -> None:
    model.save_pretrained(f"{tmp_path}/model")
    spaf_model.tl.predict_colocalization(adata, model, 0.6)
    spaf_model.tl.predict_colocalization(adata, f"{tmp_path}/model", 0.6, key_added="other")
    assert (adata.obsm["other"] != adata.obsm["colocalization_pred"]).nnz == 0


def test_a_head_that_is_worth_nothing_is_not_offered(model: SpatialFormer, adata: anndata.AnnData) -> None:
    config = dataclasses.replace(model.config, colocalization_learnt=False)
    refusing = SpatialFormer(config, model.vocabulary)
    with pytest.raises(InputError, match="has no head of gene co-localisation worth asking: it was not trained, or"):
        refusing.predict_colocalization(adata)
    assert SpatialFormerConfig.from_dict(config.as_dict()) == config
    assert SpatialFormerConfig().colocalization_learnt
