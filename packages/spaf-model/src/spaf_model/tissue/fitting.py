"""Fitting the parts of an own-tissue model to slides that were read."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spaf_model._console import progress_bar
from spaf_model.joint import centred, size_of
from spaf_model.tissue.account import Account, SlideAccount
from spaf_model.tissue.components import principal_components
from spaf_model.tissue.config import (
    IDENTITY_WEIGHT,
    IDENTITY_WEIGHT_SMALL,
    LEAST_NEIGHBOURED,
    SMALL,
    NetworkConfig,
    TissueConfig,
)
from spaf_model.tissue.neighbours import Reach, closed_form, has_neighbour, neighbour_graph, no_neighbours, reach_of
from spaf_model.tissue.network import PlaceNetwork, Trained, TrainingSlide, fit_network
from spaf_model.tissue.reading import check_shares
from spaf_model.tissue.standardise import PearsonResiduals, Rows, Standardised, ZScores

if TYPE_CHECKING:
    from scipy import sparse

    from spaf_model.tissue.reading import SlideCells


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """The parts of a model."""

    config: TissueConfig
    closed: Rows  # (n_genes, up to n_place); no column where there is no place
    identity: Rows  # (n_genes, up to n_identity)
    network: PlaceNetwork | None
    account: Account


def fit_parts(
    slides: Sequence[SlideCells],
    config: TissueConfig,
    *,
    n_cells: int,
    shares: Mapping[str, float] | None = None,
    n_threads: int = 1,
    progress: bool = False,
) -> Fitted:
    """Fit place and identity.

    Parameters
    ----------
    slides
        On one axis of genes.
    config
        What is asked for.
    n_cells
        Cells handed over, those without counts included, for the account.
    shares
        How much each slide, by its name, counts for the components, whatever its cells and genes: a share of all
        variance. None: every cell counts as much as any.
    n_threads
        Of the search for neighbours.
    progress
        Show a bar of the network's steps where stderr is a terminal.

    Raises
    ------
    InputError
        If `shares` lacks a slide, or a share is not above 0.
    """
    started = time.perf_counter()
    check_shares(shares, [slide.name for slide in slides])
    seed = config.seed
    residuals = [PearsonResiduals(slide.counts) for slide in slides]
    reaches = [None if slide.coordinates is None else reach_of(slide.coordinates, config.radius) for slide in slides]
    graphs = [
        _graph(slide, reach, at_most=config.max_neighbours, n_threads=n_threads)
        for slide, reach in zip(slides, reaches, strict=True)
    ]
    n_neighboured = sum(int(has_neighbour(graph).sum()) for graph in graphs)
    n_genes = residuals[0].shape[1]
    closed = np.zeros((n_genes, 0), dtype=np.float32)
    if n_neighboured >= LEAST_NEIGHBOURED:
        placed = [index for index, graph in enumerate(graphs) if graph.nnz]
        weights = _weights([slides[i] for i in placed], [residuals[i] for i in placed], shares)
        closed = closed_form(
            [residuals[i] for i in placed], [graphs[i] for i in placed], n_components=config.n_components,
            n_place=config.n_place, ridge=config.ridge, seed=seed, weights=weights,
        )  # fmt: skip
    wanted = config.network or NetworkConfig.by_size(n_neighboured)
    trained: Trained | None = None
    if config.preset == "tissue" and wanted is not None and n_neighboured >= SMALL and closed.shape[1]:
        trained = _train(slides, residuals, graphs, reaches, closed, wanted, seed=seed, progress=progress)
    place = _place_sizes(residuals, closed, trained)
    del residuals  # and the chunks that they hold
    zscores = [ZScores(slide.counts) for slide in slides]
    weights = _weights(slides, zscores, shares)
    identity = principal_components(zscores, config.n_identity, seed=seed, weights=weights)[0]
    weight = config.identity_weight
    if weight is None:  # few cells make a noisy place, so the identity weighs as much
        weight = IDENTITY_WEIGHT if n_neighboured >= SMALL else IDENTITY_WEIGHT_SMALL
    scales = place | {"identity": size_of([centred(slide.project(identity)) for slide in zscores])}
    fitted = dataclasses.replace(
        config,
        network=wanted if trained is not None else None,
        identity_weight=weight,
        n_identity=identity.shape[1],
        n_slides=len(slides),
        scales=scales,
    )
    account = Account(
        n_cells=n_cells,
        n_empty=n_cells - sum(slide.rows.size for slide in slides),
        n_genes=n_genes,
        slides=tuple(map(_slide_account, slides, reaches, graphs)),
        fallback=_fallback(slides, reaches, n_neighboured, closed.shape[1], trained is not None, config),
        loss=None if trained is None else trained.loss,
        chance=None if trained is None else trained.chance,
        seconds=time.perf_counter() - started,
    )
    return Fitted(fitted, closed, identity, None if trained is None else trained.network, account)


def _weights(
    slides: Sequence[SlideCells], standardised: Sequence[Standardised], shares: Mapping[str, float] | None
) -> list[float] | None:
    """Return the weight of a cell of each slide by which the slides have their shares of the variance; mean 1."""
    if shares is None:
        return None
    variances = [sum(float(np.square(c, dtype=np.float64).sum()) for _, c in slide.chunks()) for slide in standardised]
    weights = [shares[slide.name] / max(variance, 1e-12) for slide, variance in zip(slides, variances, strict=True)]
    n = [slide.shape[0] for slide in standardised]
    mean = float(np.dot(weights, n)) / sum(n)
    return [weight / mean for weight in weights]


def _graph(slide: SlideCells, reach: Reach | None, *, at_most: int, n_threads: int) -> sparse.csr_array:
    if slide.coordinates is None:
        return no_neighbours(slide.rows.size)
    return neighbour_graph(slide.coordinates, reach, at_most=at_most, n_threads=n_threads)


def _train(
    slides: Sequence[SlideCells],
    residuals: Sequence[PearsonResiduals],
    graphs: Sequence[sparse.csr_array],
    reaches: Sequence[Reach | None],
    closed: Rows,
    network: NetworkConfig,
    *,
    seed: int,
    progress: bool,
) -> Trained:
    training = [
        TrainingSlide(residual, slide.coordinates, graph, reach)
        for slide, residual, graph, reach in zip(slides, residuals, graphs, reaches, strict=True)
        if slide.coordinates is not None and reach is not None and graph.nnz
    ]
    with progress_bar("Fitting the network", network.steps, shown=progress) as advance:
        return fit_network(training, closed, network, seed=seed, on_step=advance)


def _place_sizes(residuals: Sequence[PearsonResiduals], closed: Rows, trained: Trained | None) -> dict[str, float]:
    """Return the sizes of the parts of place, centred by slide, over all cells."""
    if not closed.shape[1]:
        return {}
    sizes = {"closed": size_of([centred(slide.project(closed)) for slide in residuals])}
    if trained is not None:
        sizes["network"] = size_of([centred(trained.network.embed(slide)) for slide in residuals])
    return sizes


def _slide_account(slide: SlideCells, reach: Reach | None, graph: sparse.csr_array) -> SlideAccount:
    n_with = int(has_neighbour(graph).sum())
    if slide.coordinates is None:
        who = "none, as there are no coordinates"
    else:
        who = "none, as all cells have one place" if reach is None else reach.reason
    return SlideAccount(
        name=slide.name, n_cells=slide.rows.size, n_genes=slide.n_genes, neighbours=who,
        n_with_neighbour=n_with, mean_neighbours=graph.nnz / max(n_with, 1),
    )  # fmt: skip


def _fallback(
    slides: Sequence[SlideCells],
    reaches: Sequence[Reach | None],
    n_neighboured: int,
    n_place: int,
    has_network: bool,
    config: TissueConfig,
) -> str:
    """Say why less was fitted than was asked for, in one sentence; "" where all was."""
    left_out = "so place is left out and the embedding is identity alone"
    if not n_place:
        if all(slide.coordinates is None for slide in slides):
            return f"There is no obsm['spatial'], {left_out}."
        if all(reach is None for reach in reaches):
            return f"All cells of a slide have one place, {left_out}."
        if n_neighboured < LEAST_NEIGHBOURED:
            return (
                f"Only {n_neighboured:,} cells have a neighbour (at least {LEAST_NEIGHBOURED} are needed), {left_out}."
            )
        return f"Cells have nothing in common with their neighbours, {left_out}."
    if config.preset == "tissue" and not has_network:
        return (
            f"Only {n_neighboured:,} cells have a neighbour, and a network needs {SMALL:,}, so place is the closed "
            "form alone (preset neighbours)."
        )
    return ""


def size_of_place(config: TissueConfig) -> float:
    """Return the root mean squared norm of unit closed form beside weighted unit network."""
    return math.sqrt(1.0 + (config.network_weight**2 if "network" in config.scales else 0.0))
