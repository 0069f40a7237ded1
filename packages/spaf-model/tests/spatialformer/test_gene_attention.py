import math
from collections import defaultdict

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from spaf_model import GeneAttention, InputError, SpatialFormer, TokenBatch, context_ids, match_genes, rank_genes
from spaf_model.attention_bias import alibi_slopes
from spaf_model.results import DIRECTIONS

PAIRS = [["cell3", "cell8"], ["cell8", "cell40"], ["cell10", "cell11"], ["cell3", "cell8"], ["cell21", "cell21"]]


def slow_attention(
    model: SpatialFormer, adata: anndata.AnnData, layers: list[int], heads: list[int], *, minus_alibi: bool
) -> tuple[dict[tuple[str, str, str], float], dict[tuple[str, str, str], int]]:
    """(direction, query, key) -> mean and number of pairs, one weight at a time."""
    counts = adata.X.tocsr()
    match = match_genes(adata.var, model.vocabulary, min_fraction=1.0)
    ranked = rank_genes(counts.indptr, match.token_ids[counts.indices], counts.data, model.vocabulary.scale)
    context = context_ids(model.vocabulary, adata.obs)
    slopes = alibi_slopes(model.config.n_heads)
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for pair in PAIRS:
        cells = adata.obs_names.get_indexer(pair)
        both: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for order in ((0, 1), (1, 0)):
            first, second = cells[[order[0]]], cells[[order[1]]]
            batch = TokenBatch.from_pairs(ranked, context, first, second, model.vocabulary)
            names = [model.vocabulary.tokens[token] for token in batch.ids[0].tolist()]
            sides = ["left", "right"] if order == (0, 1) else ["right", "left"]
            side_of = [sides[kind - 1] for kind in batch.types[0].tolist()]
            length = len(names)
            with torch.no_grad():
                weights = [layer[0].double() for layer in model.network.attention_weights(batch)]
            for i in range(length):
                for j in range(length):
                    if not (names[i].startswith("GENE") and names[j].startswith("GENE")) or i == j:
                        continue
                    value = 0.0
                    for layer in layers:
                        for head in heads:
                            value += float(weights[layer][head, i, j])
                            if minus_alibi:
                                row = [math.exp(-slopes[head] * abs(i - k)) for k in range(length)]
                                value -= row[j] / sum(row)
                    one, other = side_of[i], side_of[j]
                    direction = f"within_{one}" if one == other else f"{one}_to_{other}"
                    both[direction, names[i], names[j]].append(value / len(layers) / len(heads))
        for key, orders in both.items():
            assert len(orders) == 2
            values[key].append(sum(orders) / 2)
    return (
        {key: sum(found) / len(found) for key, found in values.items()},
        {key: len(found) for key, found in values.items()},
    )


def as_dicts(
    result: GeneAttention,
) -> tuple[dict[tuple[str, str, str], float], dict[tuple[str, str, str], int]]:
    means, counts = {}, {}
    for direction in DIRECTIONS:
        for row in result.table(direction).itertuples():
            means[direction, row.query, row.key] = float(row.weight)
            counts[direction, row.query, row.key] = int(row.n_pairs)
    return means, counts


@pytest.mark.parametrize(("layers", "heads"), [(None, None), ([1], [0, 3])])
@pytest.mark.parametrize("minus_alibi", [True, False])
def test_agrees_with_one_weight_at_a_time(
    layers: list[int] | None,
    heads: list[int] | None,
    minus_alibi: bool,
    model: SpatialFormer,
    adata: anndata.AnnData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model.network.eval()
    expected, expected_pairs = slow_attention(
        model, adata, layers or [0, 1], heads or [0, 1, 2, 3], minus_alibi=minus_alibi
    )
    result = model.attention(adata, PAIRS, layers, heads, minus_alibi=minus_alibi)
    means, n_pairs = as_dicts(result)
    assert n_pairs == expected_pairs
    np.testing.assert_allclose([means[key] for key in expected], list(expected.values()), atol=1e-5)
    assert (result.n_cell_pairs, result.n_empty) == (5, 0)
    # Neither batches nor the moments at which sums are settled change anything.
    monkeypatch.setattr("spaf_model.spatialformer.gene_attention._MOST_WEIGHTS", 1)
    monkeypatch.setattr("spaf_model.spatialformer.gene_attention._MOST_PENDING", 50)
    other, other_pairs = as_dicts(model.attention(adata, PAIRS, layers, heads, minus_alibi=minus_alibi, token_budget=1))
    assert other_pairs == n_pairs
    np.testing.assert_allclose([other[key] for key in means], list(means.values()), atol=1e-6)


def test_swapping_the_cells_swaps_the_directions(model: SpatialFormer, adata: anndata.AnnData) -> None:
    one = model.attention(adata, PAIRS)
    other = model.attention(adata, [[right, left] for left, right in PAIRS])
    mirrored = {
        "left_to_right": "right_to_left",
        "right_to_left": "left_to_right",
        "within_left": "within_right",
        "within_right": "within_left",
    }
    for direction in DIRECTIONS:
        swapped = mirrored[direction]
        difference = one.weights[direction] - other.weights[swapped]  # type: ignore[index]
        assert abs(difference).max() < 1e-6
        assert (one.n_pairs[direction] != other.n_pairs[swapped]).nnz == 0  # type: ignore[index]


def test_queries_that_say_nothing_leave_nothing_beyond_alibi(model: SpatialFormer, adata: anndata.AnnData) -> None:
    with torch.no_grad():
        for name, tensor in model.network.named_parameters():
            if ".qkv." in name:
                tensor.zero_()
    plain = model.attention(adata, PAIRS, minus_alibi=False)
    assert plain.weights["left_to_right"].max() > 1e-3
    rest = model.attention(adata, PAIRS)
    for direction in DIRECTIONS:
        assert abs(rest.weights[direction]).max() < 1e-6
        assert rest.weights[direction].nnz == plain.weights[direction].nnz > 0


def test_planted_attention_is_found(
    model: SpatialFormer, adata: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer in which every GENE2 looks at every GENE6 of the other cell, and at nothing else."""
    query, key = (model.vocabulary.tokens.index(name) for name in ("GENE2", "GENE6"))

    def planted(batch: TokenBatch) -> list[torch.Tensor]:
        n, length = batch.ids.shape
        weights = torch.zeros(n, 4, length, length)
        looks = (batch.ids == query).unsqueeze(-1) & (batch.ids == key).unsqueeze(-2)
        weights[:, 0] = (looks & (batch.types.unsqueeze(-1) != batch.types.unsqueeze(-2))).float()
        return [torch.zeros_like(weights), weights]

    monkeypatch.setattr(model.network, "attention_weights", planted)
    rng = np.random.default_rng(0)
    shuffled = adata[:, rng.permutation(40)].copy()
    result = model.attention(shuffled, rng.integers(0, 60, (50, 2)), layers=[1], heads=[0], minus_alibi=False)
    best = result.table("left_to_right").iloc[0]
    assert (best["query"], best["key"], best["weight"]) == ("GENE2", "GENE6", 1.0)
    assert result.weights["left_to_right"].sum() == 1.0
    assert result.weights["within_left"].sum() == 0.0
    assert best["n_pairs"] > 5
    few = result.table("left_to_right", min_pairs=int(best["n_pairs"]))
    assert 0 < len(few) < result.weights["left_to_right"].nnz
    assert (few["n_pairs"] >= best["n_pairs"]).all()


def test_pairs_in_any_form_and_empty_cells(model: SpatialFormer, adata: anndata.AnnData) -> None:
    by_name = model.attention(adata, PAIRS)
    table = pd.DataFrame(PAIRS, columns=["left", "right"])
    positions = adata.obs_names.get_indexer(np.ravel(PAIRS)).reshape(-1, 2)
    for pairs in (table, positions):
        assert (model.attention(adata, pairs).weights["within_left"] != by_name.weights["within_left"]).nnz == 0
    dense = adata.X.toarray()
    dense[8] = 0
    adata.X = dense
    result = model.attention(adata, PAIRS)
    assert (result.n_cell_pairs, result.n_empty) == (2, 3)
    nothing = model.attention(adata, [])
    assert nothing.table("left_to_right").empty
    assert nothing.n_cell_pairs == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [2]}, "layers must be from 0 to 1, not 2"),
        ({"heads": [-1]}, "heads must be from 0 to 3, not -1"),
        ({"layers": []}, "layers is empty; None takes all 2"),
        ({"pairs": [["cell1", "cell2", "cell3"]]}, r"shape \(n_pairs, 2\), not \(1, 3\)"),
        ({"pairs": [["cell1", "nobody"]]}, "right names cells that are not in the AnnData"),
        ({"pairs": pd.DataFrame({"left": ["cell1"], "b": ["cell2"]})}, "no column 'right'; it has: left, b"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str, model: SpatialFormer, adata: anndata.AnnData) -> None:
    with pytest.raises(InputError, match=message):
        model.attention(adata, **{"pairs": PAIRS, **options})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="direction must be one of left_to_right"):
        model.attention(adata, PAIRS[:1]).table("across")  # type: ignore[arg-type]
