import numpy as np
import pytest

from spaf_data import GeneProximity
from spaf_model import InputError
from spaf_train.gene_embedding import association, factorise


def proximity(observed, expected) -> GeneProximity:
    observed = np.asarray(observed)
    return GeneProximity(
        genes=[f"G{k}" for k in range(len(observed))],
        gene_ids=None,
        n_transcripts=np.full(len(observed), 100),
        n_cells=3,
        observed=observed,
        expected=np.asarray(expected, dtype=float),
        radius=3.0,
        across_cells=False,
    )


def test_association_is_the_log_ratio_to_either_chance() -> None:
    counts = proximity([[4, 6], [6, 1]], [[2.0, 8.0], [8.0, 1.0]])
    cells = association(counts, null="cells", pseudo_count=2.0)
    assert cells == pytest.approx(np.log([[6 / 4, 8 / 10], [8 / 10, 1.0]]))
    # 11 pairs have 22 ends, of which 14 are of the first gene: 14 * 14 / 22 / 2 pairs of it with itself.
    abundance = association(counts, null="abundance", pseudo_count=2.0)
    chance = np.array([[14 * 14 / 44, 14 * 8 / 22], [14 * 8 / 22, 8 * 8 / 44]])
    assert chance[np.triu_indices(2)].sum() == pytest.approx(11)
    assert abundance == pytest.approx(np.log((counts.observed + 2.0) / (chance + 2.0)))


def test_what_is_not_expected_comes_out_near_zero() -> None:
    ratio = association(proximity([[0, 1], [1, 0]], [[0.0, 0.01], [0.01, 0.0]]), pseudo_count=5.0)
    assert np.abs(ratio).max() < 0.2


def test_options_are_checked() -> None:
    counts = proximity([[1, 1], [1, 1]], np.ones((2, 2)))
    with pytest.raises(InputError, match="null must be one of cells, abundance, not 'cell'"):
        association(counts, null="cell")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pseudo_count must be above 0"):
        association(counts, pseudo_count=0.0)


def test_factors_are_the_leading_eigenvectors() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 40))
    matrix = matrix + matrix.T
    for dimensions in (1, 7, 39):
        vectors, weights = factorise(matrix, dimensions)
        values, basis = np.linalg.eigh(matrix)
        order = np.argsort(-np.abs(values))[:dimensions]
        assert weights == pytest.approx(values[order])
        best = (basis[:, order] * values[order]) @ basis[:, order].T
        assert (vectors * np.sign(weights)) @ vectors.T == pytest.approx(best, abs=1e-8)
        assert (vectors[np.abs(vectors).argmax(axis=0), np.arange(dimensions)] > 0).all()


def test_signs_and_order_do_not_depend_on_the_order_of_genes() -> None:
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(30, 30))
    matrix = matrix + matrix.T
    order = rng.permutation(30)
    first, weights = factorise(matrix, 5)
    second, same = factorise(matrix[np.ix_(order, order)], 5)
    assert same == pytest.approx(weights)
    assert second == pytest.approx(first[order], abs=1e-8)
