import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from spaf_model import (
    EmbeddingSettings,
    InputError,
    RankedCells,
    SpatialFormer,
    SpatialFormerConfig,
    TokenBatch,
    Vocabulary,
    embed_cell_pairs,
    embed_cells,
)
from spaf_model.spatialformer import InferenceEncoder


@pytest.mark.parametrize("method", ["cls", "gene"])
def test_agrees_with_one_cell_at_a_time(
    method: str, model: SpatialFormer, ranked: RankedCells, context: np.ndarray
) -> None:
    fast = embed_cells(model.network, model.vocabulary, ranked, context, method=method)  # type: ignore[arg-type]
    model.network.eval()
    for cell in range(ranked.n_cells):
        with torch.no_grad():
            hidden = model.network.encode(TokenBatch.from_cells(ranked, context, np.array([cell]), model.vocabulary))
        slow = hidden[0, 0] if method == "cls" else hidden[0, 5:].mean(dim=0)
        np.testing.assert_allclose(fast[cell], slow.numpy(), atol=1e-5)


@pytest.mark.parametrize("method", ["cls", "gene"])
@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_batch_size_and_order_change_nothing(
    method: str, budget: int, model: SpatialFormer, ranked: RankedCells, context: np.ndarray
) -> None:
    expected = embed_cells(model.network, model.vocabulary, ranked, context, method=method)  # type: ignore[arg-type]
    order = np.random.default_rng(0).permutation(ranked.n_cells)
    n_genes = ranked.n_genes[order]
    shuffled = RankedCells(
        indptr=np.concatenate([[0], np.cumsum(n_genes)]),
        tokens=np.concatenate([ranked.tokens[ranked.indptr[cell] : ranked.indptr[cell + 1]] for cell in order]),
    )
    settings = EmbeddingSettings(token_budget=budget)
    result = embed_cells(
        model.network,
        model.vocabulary,
        shuffled,
        context[order],
        method=method,
        settings=settings,  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(result, expected[order], atol=1e-5)


def test_forced_kernels_agree(model: SpatialFormer, ranked: RankedCells, context: np.ndarray) -> None:
    results = [
        embed_cells(model.network, model.vocabulary, ranked, context, settings=EmbeddingSettings(kernel=kernel))
        for kernel in ("explicit", "sdpa")
    ]
    np.testing.assert_allclose(*results, atol=1e-5)


def test_bf16_stays_close_to_fp32(model: SpatialFormer, ranked: RankedCells, context: np.ndarray) -> None:
    full = embed_cells(model.network, model.vocabulary, ranked, context)
    half = embed_cells(model.network, model.vocabulary, ranked, context, settings=EmbeddingSettings(precision="bf16"))
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.999
    assert not np.array_equal(full, half)


def test_empty_cells_are_nan_and_the_mode_is_restored(model: SpatialFormer, context: np.ndarray) -> None:
    token = model.vocabulary.gene_token_ids[:2]
    ranked = RankedCells(indptr=np.array([0, 1, 1, 2]), tokens=token)
    model.network.train()
    seen: list[int] = []
    result = embed_cells(model.network, model.vocabulary, ranked, context[:3], on_batch=seen.append)
    assert np.isnan(result).all(axis=1).tolist() == [False, True, False]
    assert model.network.training
    assert sum(seen) == 2


def test_pairs_agree_with_both_orders_by_hand(model: SpatialFormer, ranked: RankedCells, context: np.ndarray) -> None:
    left, right = np.array([0, 3, 5, 7]), np.array([1, 4, 5, 2])
    settings = EmbeddingSettings(token_budget=80)
    pairs = embed_cell_pairs(model.network, model.vocabulary, ranked, context, left, right, settings=settings)
    network = model.network.eval()
    for row in range(left.size):
        one = slice(row, row + 1)
        with torch.no_grad():
            hidden = [
                network.encode(TokenBatch.from_pairs(ranked, context, a[one], b[one], model.vocabulary))
                for a, b in ((left, right), (right, left))
            ]
            probability = sum(network.pair_logits(h).softmax(-1)[0, 1] for h in hidden) / 2
        np.testing.assert_allclose(pairs.embeddings[row], (hidden[0] + hidden[1])[0, 0].numpy() / 2, atol=1e-5)
        np.testing.assert_allclose(pairs.probabilities[row], float(probability), atol=1e-5)


def test_swapping_the_cells_of_pairs_changes_no_bit(
    model: SpatialFormer, ranked: RankedCells, context: np.ndarray
) -> None:
    left, right = np.arange(10), np.arange(10, 20)
    one = embed_cell_pairs(model.network, model.vocabulary, ranked, context, left, right)
    other = embed_cell_pairs(model.network, model.vocabulary, ranked, context, right, left)
    np.testing.assert_array_equal(one.embeddings, other.embeddings)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_pair_with_an_empty_cell_is_nan(model: SpatialFormer, context: np.ndarray) -> None:
    ranked = RankedCells(indptr=np.array([0, 1, 1]), tokens=model.vocabulary.gene_token_ids[:1])
    left, right = np.array([0, 0]), np.array([1, 0])
    pairs = embed_cell_pairs(model.network, model.vocabulary, ranked, context[:2], left, right)
    assert np.isnan(pairs.probabilities).tolist() == [True, False]
    assert np.isnan(pairs.embeddings).all(axis=1).tolist() == [True, False]


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="precision must be one of fp32, bf16"):
        EmbeddingSettings(precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="token_budget"):
        EmbeddingSettings(token_budget=0)


def test_bad_arguments(model: SpatialFormer, ranked: RankedCells, context: np.ndarray) -> None:
    with pytest.raises(InputError, match="method must be one of cls, gene"):
        embed_cells(model.network, model.vocabulary, ranked, context, method="CLS")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="equal lengths"):
        embed_cell_pairs(model.network, model.vocabulary, ranked, context, np.arange(2), np.arange(3))


def test_out_of_memory_says_what_to_lower(
    model: SpatialFormer, ranked: RankedCells, context: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(InferenceEncoder, "encode", exhaust)
    with pytest.raises(InputError, match="at 512 tokens a batch: lower token_budget"):
        embed_cells(model.network, model.vocabulary, ranked, context, settings=EmbeddingSettings(token_budget=512))


@pytest.fixture
def separate(
    config: SpatialFormerConfig, vocabulary: Vocabulary, randomised: Callable[[torch.nn.Module], None]
) -> SpatialFormer:
    """A model that reads the two cells of a pair apart."""
    model = SpatialFormer(dataclasses.replace(config, pair_input="separate", pair_rank=6), vocabulary, seed=1)
    randomised(model.network)
    return model


def test_cells_read_apart_are_compared_by_their_states(
    separate: SpatialFormer, ranked: RankedCells, context: np.ndarray
) -> None:
    left, right = np.arange(0, 20), np.arange(10, 30)
    pairs = embed_cell_pairs(separate.network, separate.vocabulary, ranked, context, left, right)
    cells = embed_cells(separate.network, separate.vocabulary, ranked, context)
    head = {name: tensor.numpy() for name, tensor in separate.network.pair_head.state_dict().items()}
    z = cells @ head["project.weight"].T + head["project.bias"]
    logits = head["slope"] * (z[left] * z[right] * head["weight"]).sum(axis=1) + head["offset"]
    np.testing.assert_allclose(pairs.probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-4)
    np.testing.assert_allclose(pairs.embeddings, (cells[left] + cells[right]) / 2, atol=1e-6)
    swapped = embed_cell_pairs(separate.network, separate.vocabulary, ranked, context, right, left)
    np.testing.assert_array_equal(pairs.probabilities, swapped.probabilities)
    with torch.no_grad():
        states = torch.from_numpy(cells)
        similarity = separate.network.pair_head.similarity(states, states)[left, right]
        np.testing.assert_allclose(separate.network.pair_head.calibrate(similarity).numpy(), logits, rtol=1e-4)


def test_cells_read_apart_do_not_depend_on_the_budget(
    separate: SpatialFormer, ranked: RankedCells, context: np.ndarray
) -> None:
    left, right = np.arange(0, 20), np.arange(10, 30)
    one, other = (
        embed_cell_pairs(
            separate.network,
            separate.vocabulary,
            ranked,
            context,
            left,
            right,
            settings=EmbeddingSettings(token_budget=budget),
        )
        for budget in (7, 10_000)
    )
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_a_cell_without_genes_has_no_pair_probability_when_read_apart(
    separate: SpatialFormer, ranked: RankedCells, context: np.ndarray
) -> None:
    empty = RankedCells(indptr=np.concatenate([[0], ranked.indptr]), tokens=ranked.tokens)
    pairs = embed_cell_pairs(
        separate.network,
        separate.vocabulary,
        empty,
        np.vstack([context[:1], context]),
        np.array([0, 1]),
        np.array([2, 3]),
    )
    assert np.isnan(pairs.probabilities).tolist() == [True, False]


def test_each_way_to_read_a_pair_has_its_own_head(
    model: SpatialFormer, separate: SpatialFormer, ranked: RankedCells, context: np.ndarray
) -> None:
    batch = TokenBatch.from_pairs(ranked, context, np.array([0]), np.array([1]), model.vocabulary)
    hidden = separate.network.encode(batch)
    with pytest.raises(InputError, match="pair_input is separate"):
        separate.network.pair_logits(hidden)
    with pytest.raises(InputError, match="pair_input is joint"):
        model.network.pair_logits_of_cells(hidden[:, 0], hidden[:, 0])
