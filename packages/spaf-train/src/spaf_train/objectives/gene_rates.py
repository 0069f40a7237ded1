"""Where outputs of counts begin: rates of genes, as far as slides of different panels say, and their dispersions."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spaf_model import CellDecoder, Expert, SingleExpert, technology_names
from spaf_train.objectives.dispersions import CountMoments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spaf_train.stream.loader import BatchStream

_ROUNDS = 20  # in which the shares settle to six digits, or where panels do not overlap never do and need not
_KNOWN: weakref.WeakKeyDictionary[BatchStream, dict[str, Tensor]] = weakref.WeakKeyDictionary()


def gene_rates(train: BatchStream) -> dict[str, Tensor]:
    """Return what outputs of counts begin with, from one reading of the training split.

    A slide says how its counts are shared among the genes that it measures, and nothing of other genes. The rates r are
    those shares of the whole that the slides agree on best: with R_s the rates of the genes of slide s added up and N_s
    its counts, the counts of gene g are expected to be ``r_g sum_s N_s / R_s`` over the slides that measure it, which
    is solved by repetition.

    Returns
    -------
    dict
        ``rates`` of the gene of each token, float32 (n_tokens,), adding up to 1, 0 for what is no gene or was never
        seen; ``scales`` of each technology of the vocabulary, float32: the logarithm of 1 / R, by which the share of a
        gene among its measured genes is larger; ``log_inverse_dispersions`` of the gene of each token around those
        (`CountMoments`), float32 (n_tokens,).
    """
    if train not in _KNOWN:
        _KNOWN[train] = _estimated(train)
    return _KNOWN[train]


def _estimated(train: BatchStream) -> dict[str, Tensor]:
    n_tokens = train.vocabulary.n_tokens
    counts = np.zeros(n_tokens)
    totals: dict[str, float] = {}
    names = technology_names(train.vocabulary)
    assays = {slide: str(own["assay"]) for slide, own in train.corpus.slides.items()}
    moments = CountMoments(len(names) + 1, n_tokens)  # the last: technologies that the vocabulary does not have
    for block in train.blocks():
        n = int(block.indptr[block.n_owned])
        tokens, own = train.token_of_gene[block.genes[:n]], block.counts[:n]
        there = tokens >= 0
        counts += np.bincount(tokens[there], weights=own[there], minlength=n_tokens)
        totals[block.slide] = totals.get(block.slide, 0.0) + float(own[there].sum())
        cells = np.repeat(np.arange(block.n_owned), np.diff(block.indptr[: block.n_owned + 1]))[there]
        technology = names.index(assays[block.slide]) if assays[block.slide] in names else len(names)
        moments.add(technology, cells, tokens[there], own[there].astype(np.float64), train.panel(block.slide))
    slides = [slide for slide, total in totals.items() if total > 0]
    panels = np.stack([train.panel(slide) for slide in slides]).astype(np.float64)
    sizes = np.array([totals[slide] for slide in slides])
    rates = counts / counts.sum()
    for _ in range(_ROUNDS):
        exposure = (sizes / (panels @ rates)) @ panels
        rates = np.divide(counts, exposure, out=np.zeros(n_tokens), where=exposure > 0)
        rates /= rates.sum()
    shares = panels @ rates
    scales = []
    for name in names:
        own = np.array([assays[slide] == name for slide in slides])
        scales.append(float(np.average(-np.log(shares[own]), weights=sizes[own])) if own.any() else 0.0)
    return {
        "rates": torch.from_numpy(rates.astype(np.float32)),
        "scales": torch.tensor(scales, dtype=torch.float32),
        "log_inverse_dispersions": torch.from_numpy(
            moments.log_inverse_dispersions(rates, np.array([*scales, 0.0])).astype(np.float32)
        ),
    }


def slide_sums(stream: BatchStream) -> Tensor:
    """Return the counts of the genes of each slide of the corpus in a split, float32 (n_slides, n_tokens)."""
    numbers = {slide: number for number, slide in enumerate(stream.corpus.slides)}
    sums = np.zeros((len(numbers), stream.vocabulary.n_tokens))
    for block in stream.blocks():
        n = int(block.indptr[block.n_owned])
        tokens, own = stream.token_of_gene[block.genes[:n]], block.counts[:n]
        there = tokens >= 0
        sums[numbers[block.slide]] += np.bincount(tokens[there], weights=own[there], minlength=sums.shape[1])
    return torch.from_numpy(sums.astype(np.float32))


def begin_with_rates(network: Any, prepared: Mapping[str, Any]) -> None:
    """Let a network that answers counts begin by saying the rate of each gene, whatever the cell, and its dispersion.

    A learnt dispersion moves by about the learning rate a step, so a short run ends where it began.
    Decoders end in a map of zeros, so that the first steps need not unlearn what random numbers say: with a few hundred
    products added up, those are exponents of several units.
    """
    if network.count_output is None:
        return
    output = network.count_output
    output.start_from(prepared["rates"].to(output.log_rate.device))
    with torch.no_grad():
        output.log_inverse_dispersion.copy_(prepared["log_inverse_dispersions"])
        if output.technology_scale is not None:
            output.technology_scale.copy_(prepared["scales"])
    for module in network.modules():
        if isinstance(module, CellDecoder):
            torch.nn.init.zeros_(module.match.weight)
        elif isinstance(module, Expert | SingleExpert):
            torch.nn.init.zeros_(module.score.weight)
