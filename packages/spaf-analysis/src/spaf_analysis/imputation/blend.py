"""Which ways to believe of which gene, by measured genes that were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn.neighbors import NearestNeighbors

if TYPE_CHECKING:
    from scipy import sparse

_ALIKE = 50  # held-out genes that resemble a gene
_OWN_SHARE = 0.5  # of them in the weights of a gene; the rest is of all held-out genes
_EVENNESS = 0.05  # added to correlations of a way with itself, so that ways that are alike share their weight
_PENALTY = 2.0  # of the regression of accuracies, in genes
_QUANTILES = (0.1, 0.9)


@dataclass(frozen=True)
class Evidence:
    """How the ways went for some genes, over cells.

    Attributes
    ----------
    between
        (n_genes, n_ways, n_ways), correlations of the ways with each other.
    truth
        (n_genes, n_ways), correlations with what was measured; NaN where nothing was.
    about
        (n_genes, n_features), what is known of a gene without having measured it.
    """

    between: NDArray[np.float64]
    truth: NDArray[np.float64]
    about: NDArray[np.float64]

    def __getitem__(self, genes: NDArray[np.int64]) -> Evidence:
        return Evidence(self.between[genes], self.truth[genes], self.about[genes])

    @classmethod
    def joined(cls, parts: list[Evidence]) -> Evidence:
        """Return several one after the other."""
        return cls(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("between", "truth", "about")))

    def accuracy(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the correlation of the weighted sum of standardised ways with the truth, (n_genes,)."""
        covariance = np.einsum("gm,gm->g", weights, np.nan_to_num(self.truth))
        variance = np.einsum("gm,gmn,gn->g", weights, self.between, weights)
        found = np.zeros(len(weights))
        np.divide(covariance, np.sqrt(np.maximum(variance, 0.0)), out=found, where=variance > 1e-12)
        return found


def correlations(
    ways: NDArray[np.float32], truth: NDArray[np.floating] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return correlations between ways and with the truth, and means and deviations of the ways, gene by gene.

    Parameters
    ----------
    ways
        (n_ways, n_cells, n_genes); overwritten.
    truth
        (n_cells, n_genes), or None.
    """
    mean = ways.mean(axis=1, dtype=np.float64)
    ways -= mean[:, None].astype(np.float32)
    spread = np.sqrt(np.mean(ways**2, axis=1, dtype=np.float64))
    ways /= np.where(spread > 1e-9, spread, np.inf)[:, None].astype(np.float32)
    by_gene = np.ascontiguousarray(ways.transpose(2, 0, 1))
    n_cells = by_gene.shape[2]
    between = np.asarray(by_gene @ by_gene.transpose(0, 2, 1), dtype=np.float64) / n_cells
    with_truth = np.full(by_gene.shape[:2], np.nan)
    if truth is not None:
        away = np.asarray(truth, dtype=np.float32) - truth.mean(axis=0)
        deviation = away.std(axis=0)
        away /= np.where(deviation > 1e-9, deviation, np.inf)
        with_truth = np.asarray((by_gene @ away.T[:, :, None])[:, :, 0], dtype=np.float64) / n_cells
        with_truth[deviation <= 1e-9] = np.nan
    return between, with_truth, mean, spread


def describe_genes(
    known: NDArray[np.float32],
    targets: sparse.csr_matrix,
    between: NDArray[np.float64],
    spread: NDArray[np.float64],
    n_base: int,
) -> NDArray[np.float64]:
    """Return what is known of genes without having measured them in the query, (n_genes, n_features).

    Logarithms of mean and of variance over mean in the reference, how well the components of the shared genes explain
    the gene there, how far the ways agree in the query, how much averaging over similar cells changes, and how much of
    the reference's variation is predicted.
    """
    mean = np.asarray(targets.mean(axis=0), dtype=np.float64).ravel()
    square = np.asarray(targets.multiply(targets).mean(axis=0), dtype=np.float64).ravel()
    variance = np.maximum(square - mean**2, 1e-12)
    product = np.asarray((targets.T @ known).T, dtype=np.float64) - np.outer(known.sum(axis=0), mean)
    moments = known.T.astype(np.float64) @ known
    coefficients = np.linalg.solve(moments + 0.1 * len(known) * np.eye(len(moments)), product)
    fitted = np.sqrt(np.maximum(np.einsum("kg,kl,lg->g", coefficients, moments, coefficients), 1e-12))
    explained = np.einsum("kg,kg->g", coefficients, product) / (fitted * np.sqrt(variance * len(known)))
    base = between[:, :n_base, :n_base]
    agreement = (base.sum(axis=(1, 2)) - n_base) / max(n_base * (n_base - 1), 1)
    smooth = between[:, np.arange(n_base), np.arange(n_base, 2 * n_base)]
    ratio = np.log(np.maximum(spread[:n_base], 1e-6) / np.sqrt(variance)).mean(axis=0)
    scatter = np.log(variance / np.maximum(mean, 1e-6))
    about = np.column_stack([np.log10(mean + 1e-4), scatter, explained, agreement, smooth.mean(axis=1), ratio])
    return np.asarray(np.nan_to_num(about), dtype=np.float64)


def blend_weights(judged: Evidence, wanted: Evidence) -> NDArray[np.float64]:
    """Return the weight of each standardised way for each wanted gene, by least squares over genes that were judged.

    Weights are not negative and sum to 1. Half of what they follow from are the judged genes that a gene resembles.
    """
    n_ways = judged.truth.shape[1]
    known = judged[np.flatnonzero(np.isfinite(judged.truth).all(axis=1))]
    even = np.full((len(wanted.truth), n_ways), 1.0 / n_ways)
    if len(known.truth) < 2:
        return even
    centre, spread = known.about.mean(axis=0), known.about.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    search = NearestNeighbors(n_neighbors=min(_ALIKE, len(known.truth))).fit((known.about - centre) / scale)
    alike = search.kneighbors((wanted.about - centre) / scale, return_distance=False)
    between, truth = known.between.mean(axis=0), known.truth.mean(axis=0)
    weights = even
    for gene, some in enumerate(alike):
        square = _OWN_SHARE * known.between[some].mean(axis=0) + (1.0 - _OWN_SHARE) * between
        product = _OWN_SHARE * known.truth[some].mean(axis=0) + (1.0 - _OWN_SHARE) * truth
        lower = np.linalg.cholesky(square + _EVENNESS * np.eye(n_ways))
        found = nnls(lower.T, np.linalg.solve(lower, product))[0]
        if found.sum() > 0.0:
            weights[gene] = found / found.sum()
    return weights


@dataclass(frozen=True)
class AccuracyModel:
    """Expected accuracy of genes from what is known of them, by ridge regression on held-out genes.

    Attributes
    ----------
    centre, scale
        Of the features.
    coefficients
        Of features and, last, a constant.
    residuals
        10th and 90th percentile of realised less expected accuracy, of genes that no expectation was fitted on.
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    residuals: tuple[float, float]

    @classmethod
    def fit(
        cls, about: NDArray[np.float64], accuracy: NDArray[np.float64], expected: NDArray[np.float64] | None = None
    ) -> AccuracyModel:
        """Fit on genes with a finite accuracy.

        Parameters
        ----------
        about, accuracy
            Of genes, (n_genes, n_features) and (n_genes,).
        expected
            (n_genes,), what fits without each gene let expect: residuals are from that. None: from this fit, which is
            nearer to its genes than to others.
        """
        known = np.isfinite(accuracy)
        away = None if expected is None else (accuracy - expected)[known]
        about, accuracy = about[known], accuracy[known]
        spread = about.std(axis=0)
        centre, scale = about.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)
        design = _with_constant((about - centre) / scale)
        penalty = np.diag([_PENALTY] * (design.shape[1] - 1) + [0.0])
        coefficients = np.linalg.solve(design.T @ design + penalty, design.T @ accuracy)
        low, high = np.quantile(accuracy - design @ coefficients if away is None else away, _QUANTILES)
        return cls(centre, scale, np.asarray(coefficients, dtype=np.float64), (float(low), float(high)))

    def predict(self, about: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the expected accuracy of genes; features beyond those seen count as the outermost seen."""
        standard = np.clip((about - self.centre) / self.scale, -3.0, 3.0)
        return np.asarray(np.clip(_with_constant(standard) @ self.coefficients, 0.0, 1.0), dtype=np.float64)


def _with_constant(features: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([features, np.ones(len(features))])
