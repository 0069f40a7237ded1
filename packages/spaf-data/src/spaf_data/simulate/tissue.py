"""The tissue of a simulated slide: expression, planted pairs, domains and the places of cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spaf_data.simulate.recipe import PATTERNS

if TYPE_CHECKING:
    from spaf_data.simulate.recipe import Simulation


_NUCLEAR = 0.4  # share of the transcripts in the nucleus of genes without a pattern: the mean of the others' draws


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """What all chunks share: expression, planted pairs and domains."""

    genes: list[str]
    profiles: np.ndarray  # (n_domains, n_types, n_genes): share of each gene
    nuclear: np.ndarray  # (n_genes,): share of the transcripts in the nucleus
    spot: np.ndarray  # (n_genes,): the planted pair of a gene, -1 without
    pattern: np.ndarray  # (n_genes,): the place in `PATTERNS` of the planted pattern of a gene, -1 without
    composition: np.ndarray  # (n_domains, n_types)
    n_columns: int  # cells in a row of the lattice
    truth: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The cells of a chunk."""

    number: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    nucleus_radius: np.ndarray
    kind: np.ndarray
    domain: np.ndarray


def make_tissue(recipe: Simulation) -> Tissue:
    """Draw expression, planted pairs and the composition of domains."""
    rng = np.random.default_rng([recipe.seed, 0])
    genes = [f"GENE{i:05d}" for i in range(recipe.n_genes)]
    shuffled = rng.permutation(recipe.n_genes)
    n_spots, n_planted = recipe.n_colocalized_pairs, recipe.n_colocalized_pairs + recipe.n_abundant_pairs
    pairs = np.sort(shuffled[: 2 * n_planted].reshape(n_planted, 2), axis=1)
    n_others = recipe.n_genes - len(PATTERNS) * recipe.n_pattern_genes
    others, patterned = shuffled[2 * n_planted : n_others], shuffled[n_others:]
    # Half of the other genes mark a type or a domain; the rest are expressed everywhere.
    groups = recipe.n_types + recipe.n_domains
    marking = np.array_split(others[: max(groups, len(others) // 2)], groups)
    markers, niches = marking[: recipe.n_types], marking[recipe.n_types :]

    base = rng.lognormal(0.0, 1.0, recipe.n_genes)
    base[pairs[:n_spots].ravel()] = 4.0  # frequent enough to be seen together in most cells
    base[pairs[n_spots:].ravel()] = 8.0
    base[patterned] = 4.0
    for group in marking:
        base[group] = 0.1 * rng.lognormal(0.0, 0.5, len(group))
    profiles = np.tile(base, (recipe.n_domains, recipe.n_types, 1))
    for kind, group in enumerate(markers):
        profiles[:, kind, group] *= 60.0
    for domain, group in enumerate(niches):
        profiles[domain][:, group] *= 30.0
    profiles /= profiles.sum(axis=2, keepdims=True)

    spot = np.full(recipe.n_genes, -1)
    spot[pairs[:n_spots].ravel()] = np.repeat(np.arange(n_spots), 2)
    pattern = np.full(recipe.n_genes, -1)
    pattern[patterned] = np.repeat(np.arange(len(PATTERNS)), recipe.n_pattern_genes)
    nuclear = rng.beta(2.0, 3.0, recipe.n_genes)
    if recipe.n_pattern_genes:
        nuclear[:] = _NUCLEAR  # or a gene without a pattern would have one
    n_columns = int(np.ceil(np.sqrt(recipe.n_cells)))
    return Tissue(
        genes=genes,
        profiles=profiles,
        nuclear=nuclear,
        spot=spot,
        pattern=pattern,
        composition=rng.dirichlet(np.full(recipe.n_types, 0.4), recipe.n_domains),
        n_columns=n_columns,
        truth={
            "colocalized_pairs": [[genes[a], genes[b]] for a, b in pairs[:n_spots]],
            "abundant_pairs": [[genes[a], genes[b]] for a, b in pairs[n_spots:]],
            "markers": [[genes[g] for g in np.sort(group)] for group in markers],
            "niche_genes": [[genes[g] for g in np.sort(group)] for group in niches],
        }
        | ({"patterns": _genes_of_patterns(genes, pattern)} if recipe.n_pattern_genes else {}),
    )


def _genes_of_patterns(genes: list[str], pattern: np.ndarray) -> dict[str, list[str]]:
    return {name: [genes[g] for g in np.flatnonzero(pattern == k)] for k, name in enumerate(PATTERNS)}


def _domain_of(recipe: Simulation, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the domain at each place: the kind of the nearest of the jittered patch centres around it.

    The centre of a patch is a function of the seed and of its place in the grid alone, so that no chunk needs the map.
    """
    column, row = (x // recipe.domain_size).astype(np.int64), (y // recipe.domain_size).astype(np.int64)
    best = np.full(len(x), np.inf)
    domain = np.zeros(len(x), np.int64)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            jitter_x, jitter_y, kind = _patch(recipe, column + i, row + j)
            squared = ((column + i + jitter_x) * recipe.domain_size - x) ** 2
            squared += ((row + j + jitter_y) * recipe.domain_size - y) ** 2
            nearer = squared < best
            best[nearer] = squared[nearer]
            domain[nearer] = kind[nearer]
    return domain


def _patch(recipe: Simulation, column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the jitter in x and y, from 0 to 1, and the kind of patches of the domain grid."""
    places, inverse = np.unique(np.column_stack([column, row]), axis=0, return_inverse=True)
    jitter = np.empty((len(places), 2))
    kind = np.empty(len(places), np.int64)
    for k, (i, j) in enumerate(places):
        # A patch may lie at -1, which a seed may not be.
        rng = np.random.default_rng([recipe.seed, 1, int(i) + 1, int(j) + 1])
        jitter[k] = rng.random(2)
        kind[k] = rng.integers(recipe.n_domains)
    inverse = inverse.ravel()
    return jitter[inverse, 0], jitter[inverse, 1], kind[inverse]


def place_cells(recipe: Simulation, tissue: Tissue, rng: np.random.Generator, number: np.ndarray) -> Cells:
    """Place the cells with these numbers on the lattice and draw their types and sizes."""
    n = len(number)
    row, column = np.divmod(number, tissue.n_columns)
    jitter = rng.uniform(-0.25, 0.25, (2, n))
    x = (column + 0.5 + 0.5 * (row % 2) + jitter[0]) * recipe.spacing
    y = (row + 0.5 + jitter[1]) * recipe.spacing
    domain = _domain_of(recipe, x, y)
    kind = (rng.random(n)[:, None] > np.cumsum(tissue.composition, axis=1)[domain]).sum(axis=1)
    radius = recipe.spacing * rng.uniform(0.4, 0.5, n)
    return Cells(
        number=number,
        x=x,
        y=y,
        radius=radius,
        nucleus_radius=radius * rng.uniform(0.5, 0.65, n),
        kind=np.minimum(kind, recipe.n_types - 1),
        domain=domain,
    )
