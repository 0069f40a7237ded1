"""The network against a slow twin: one cell, one head, one token, every expert, as the formulas stand."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spaf_model import CellCounts, InputError, Vocabulary
from spaf_model.scgpt_spatial import (
    ExpertMixture,
    ScGPTSpatial,
    ScGPTSpatialConfig,
    ScGPTSpatialNetwork,
    ValueBatch,
    ValuedCells,
)

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def norm(x: torch.Tensor, layer: torch.nn.LayerNorm) -> torch.Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias


def slow_states(
    network: ScGPTSpatialNetwork, ids: torch.Tensor, values: torch.Tensor, asked: torch.Tensor | None = None
) -> torch.Tensor:
    """Hidden states of one cell: known genes, then those asked for."""
    config = network.config
    embedded = norm(network.genes.table.weight[ids], network.genes.norm)
    number = network.values
    of_values = F.relu(values.clamp(max=512)[:, None] @ number.expand.weight.t() + number.expand.bias)
    x = embedded + norm(of_values @ number.mix.weight.t() + number.mix.bias, number.norm)
    n_known = len(ids)
    if asked is not None:
        x = torch.cat([x, norm(network.genes.table.weight[asked], network.genes.norm) + network.flags.weight[1]])
    sees = torch.zeros(len(x), len(x), dtype=torch.bool)
    sees[:, :n_known] = True
    sees |= torch.eye(len(x), dtype=torch.bool)
    for layer in network.blocks():
        y = norm(x, layer.attention_norm) if config.norm == "pre" else x
        q, k, v = (y @ layer.attention.qkv.weight.t() + layer.attention.qkv.bias).chunk(3, dim=-1)
        heads = []
        for head in range(config.n_heads):
            part = slice(head * config.head_dim, (head + 1) * config.head_dim)
            scores = q[:, part] @ k[:, part].t() / config.head_dim**0.5
            heads.append(scores.masked_fill(~sees, -torch.inf).softmax(dim=-1) @ v[:, part])
        mixed = torch.cat(heads, dim=-1)
        projected = mixed @ layer.attention.project.weight.t() + layer.attention.project.bias
        if not config.asked_projection:
            projected = torch.cat([projected[:n_known], mixed[n_known:]])
        x = x + projected
        if config.norm == "post":
            x = norm(x, layer.attention_norm)
        y = norm(x, layer.mlp_norm) if config.norm == "pre" else x
        x = (
            x
            + F.relu(y @ layer.expand.weight.t() + layer.expand.bias) @ layer.contract.weight.t()
            + layer.contract.bias
        )
        if config.norm == "post":
            x = norm(x, layer.mlp_norm)
    return norm(x, network.final_norm) if config.norm == "pre" else x


def technology(network: ScGPTSpatialNetwork, row: int) -> torch.Tensor:
    assert network.technologies is not None
    return norm(network.technologies.table.weight[row], network.technologies.norm)


def slow_token_value(
    network: ScGPTSpatialNetwork, state: torch.Tensor, cell_state: torch.Tensor, row: int
) -> torch.Tensor:
    """The number of one token: all experts computed, those not chosen left out afterwards."""
    beside = technology(network, row)
    x = torch.cat([state, beside])
    decoder = network.token_decoder
    experts = decoder.experts if isinstance(decoder, ExpertMixture) else [decoder]
    numbers = []
    for expert in experts:
        hidden = F.leaky_relu(expert.mix(F.leaky_relu(expert.read(x))))
        numbers.append(expert.score(hidden)[0])
    if not isinstance(decoder, ExpertMixture):
        return numbers[0]
    read = torch.cat([cell_state, beside]) if network.config.routing == "cell" else x
    scores = decoder.router(read).softmax(dim=-1)
    ranked = scores if decoder.selection_bias is None else scores + decoder.selection_bias
    chosen = ranked.argsort(descending=True)[: network.config.n_active].tolist()
    return sum(scores[e] * numbers[e] for e in chosen) / sum(scores[e] for e in chosen)


def slow_cell_value(
    network: ScGPTSpatialNetwork, decoder: torch.nn.Module, state: torch.Tensor, gene: int, row: int
) -> torch.Tensor:
    """The number of one gene asked of the state of a cell."""
    query = torch.sigmoid(decoder.query(norm(network.genes.table.weight[gene], network.genes.norm)))
    return decoder.match(query) @ torch.cat([state, technology(network, row)])


@torch.no_grad()
@pytest.mark.parametrize("kernel", [None, "explicit", "sdpa"])
def test_perception_is_that_of_the_slow_twin(model: ScGPTSpatial, batch: ValueBatch, kernel: str | None) -> None:
    hidden = model.network.encode(batch, kernel=kernel)  # type: ignore[arg-type]
    for cell, length in enumerate(batch.lengths.tolist()):
        expected = slow_states(model.network, batch.ids[cell, :length], batch.values[cell, :length])
        torch.testing.assert_close(hidden[cell, :length], expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [None, "explicit", "sdpa"])
def test_generation_is_that_of_the_slow_twin(model: ScGPTSpatial, asking: ValueBatch, kernel: str | None) -> None:
    hidden = model.network.encode(asking, kernel=kernel)  # type: ignore[arg-type]
    assert asking.asked_ids is not None
    assert asking.asked_lengths is not None
    for cell, (length, n) in enumerate(zip(asking.lengths.tolist(), asking.asked_lengths.tolist(), strict=True)):
        known = (asking.ids[cell, :length], asking.values[cell, :length])
        expected = slow_states(model.network, *known, asking.asked_ids[cell, :n])
        torch.testing.assert_close(hidden[cell, :length], expected[:length], **CLOSE)
        asked = hidden[cell, asking.n_known : asking.n_known + n]
        torch.testing.assert_close(asked, expected[length:], **CLOSE)


@torch.no_grad()
def test_genes_asked_for_see_neither_each_other_nor_are_seen(model: ScGPTSpatial, batch: ValueBatch) -> None:
    genes = torch.from_numpy(model.vocabulary.gene_token_ids[:5])
    alone = model.network.encode(batch)
    together = model.network.encode(batch.asking(genes))
    mask = batch.mask
    torch.testing.assert_close(together[:, : batch.n_known][mask], alone[mask], **CLOSE)
    one = model.network.encode(batch.asking(genes[3:4]))
    torch.testing.assert_close(together[:, batch.n_known + 3], one[:, batch.n_known], **CLOSE)


@torch.no_grad()
def test_decoders_are_those_of_the_slow_twin(model: ScGPTSpatial, asking: ValueBatch) -> None:
    network = model.network
    hidden = network.encode(asking)
    numbers = network.token_values(hidden, asking)
    positions = torch.cat([asking.mask, asking.asked_mask], dim=1).nonzero().tolist()
    assert len(positions) == asking.n_tokens == len(numbers)
    for (cell, place), number in zip(positions, numbers, strict=True):
        row = int(asking.technologies[cell])
        expected = slow_token_value(network, hidden[cell, place], hidden[cell, 0], row)
        torch.testing.assert_close(number, expected, **CLOSE)
    genes = torch.from_numpy(model.vocabulary.gene_token_ids[:6])
    states = network.pool(hidden, asking, "cls")
    for found, decoder in (
        (network.cell_values(states, asking, genes), network.cell_decoder),
        (network.neighbourhood_values(states, asking, genes), network.neighbourhood_decoder),
    ):
        for cell, row in enumerate(asking.technologies.tolist()):
            for place, gene in enumerate(genes.tolist()):
                expected = slow_cell_value(network, decoder, states[cell], gene, row)
                torch.testing.assert_close(found[cell, place], expected, **CLOSE)
    each = network.cell_values(states, asking, genes.expand(len(states), -1))
    torch.testing.assert_close(each, network.cell_values(states, asking, genes), **CLOSE)


@torch.no_grad()
def test_pooling(model: ScGPTSpatial, batch: ValueBatch) -> None:
    hidden = model.network.encode(batch)
    for cell, length in enumerate(batch.lengths.tolist()):
        genes, values = hidden[cell, 1:length], batch.values[cell, 1:length]
        for method, expected in {
            "cls": hidden[cell, 0],
            "gene": genes.mean(dim=0),
            "value": (genes * values[:, None]).sum(dim=0) / values.sum(),
        }.items():
            torch.testing.assert_close(model.network.pool(hidden, batch, method)[cell], expected, **CLOSE)


def test_gradients_reach_every_weight(model: ScGPTSpatial, asking: ValueBatch) -> None:
    network = model.network.train()
    hidden = network.encode(asking)
    genes = torch.from_numpy(model.vocabulary.gene_token_ids)
    states = network.pool(hidden, asking, "cls")
    numbers = network.token_values(hidden, asking)
    of_cells = network.cell_values(states, asking, genes)
    loss = numbers.square().sum() + of_cells.sum() + network.neighbourhood_values(states, asking, genes).sum()
    if network.count_output is not None:
        log_means = network.count_output.log_means(of_cells, genes, asking.totals, asking.technologies)
        loss = loss + network.count_output.loss(log_means, genes, torch.ones_like(log_means)).sum()
    loss.backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert without == []


def test_published_configuration_has_its_tensors_and_parameters() -> None:
    with torch.device("meta"):
        network = ScGPTSpatialNetwork(ScGPTSpatialConfig.published())
    assert len(network.state_dict()) == 189
    assert sum(weight.numel() for weight in network.parameters()) == 55_012_360
    assert len(network.adapted_layers) == 48
    assert len(network.blocks()) == 12


def test_operations_of_a_cell_of_300_genes() -> None:
    with torch.device("meta"):
        network = ScGPTSpatialNetwork(ScGPTSpatialConfig.published())
    nothing = torch.zeros((1, 301), dtype=torch.int64)
    one = torch.tensor([301])
    batch = ValueBatch(nothing, nothing.float(), one, torch.tensor([0]), torch.tensor([1.0]))
    assert network.operations(batch) == pytest.approx(301 * 45.6e6, rel=0.01)
    asking = batch.asking(torch.zeros((1, 100), dtype=torch.int64))
    more = network.operations(asking) - network.operations(batch)
    assert more == 12 * 100 * (2 * 6 * 512**2 + 4 * 512 * 302)


@torch.no_grad()
def test_a_model_without_technologies_and_a_technology_that_is_not_known(
    genes: list[str], cells: CellCounts, valued: ValuedCells, model: ScGPTSpatial
) -> None:
    batch = valued.batch(np.array([1]))
    unknown = ValueBatch(batch.ids, batch.values, batch.lengths, torch.tensor([-1]), batch.totals)
    hidden = model.network.encode(unknown)
    with pytest.raises(InputError, match="technology of a cell is not known, and the decoders read it: give assay="):
        model.network.token_values(hidden, unknown)
    plain = ScGPTSpatial(model.config.__class__(width=32, n_layers=1, n_heads=4), Vocabulary.build(
        genes, scale=np.ones(len(genes)), unknown=(),
    ))  # fmt: skip
    assert plain.config.n_technologies == 0
    unknown = dataclasses.replace(unknown, ids=unknown.ids.clamp(max=5))
    states = plain.network.encode(unknown)[:, 0]
    assert plain.network.cell_values(states, unknown, torch.tensor([7])).shape == (1, 1)


def test_what_a_network_without_a_decoder_of_neighbourhoods_says(vocabulary: Vocabulary, batch: ValueBatch) -> None:
    model = ScGPTSpatial(ScGPTSpatialConfig(width=32, n_layers=1, n_heads=4, neighbourhood_decoder=False), vocabulary)
    with pytest.raises(InputError, match="has no decoder of neighbourhoods"):
        model.network.neighbourhood_values(torch.zeros(8, 32), batch, torch.tensor([7]))


def test_cells_that_thinning_left_without_a_gene_are_computable(model: ScGPTSpatial, valued: ValuedCells) -> None:
    network = model.network.train()
    empty = int(np.flatnonzero(valued.lengths == 0)[0])
    batch, _ = valued.split_batch(np.array([empty, 1]), np.zeros(valued.genes.tokens.size, dtype=bool))
    hidden = network.encode(batch)
    total = network.token_values(hidden, batch).sum() + network.pool(hidden, batch, "gene").sum()
    total.backward()
    assert torch.isfinite(hidden[batch.mask]).all()
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters() if weight.grad is not None)
