import numpy as np
import torch

from spaf_train.objectives.gene_rates import begin_with_rates, gene_rates


def test_the_rates_of_two_panels_agree_with_both(spots):
    """Each slide shares its counts among the genes that it measures, as the rates of those say."""
    _, stream = spots()
    found = gene_rates(stream)
    rates, counts, panels = found["rates"].numpy().astype(float), {}, {}
    for block in stream.blocks():
        n = int(block.indptr[block.n_owned])
        tokens = stream.token_of_gene[block.genes[:n]]
        counts.setdefault(block.slide, np.zeros(rates.size))
        np.add.at(counts[block.slide], tokens, block.counts[:n])
        panels[block.slide] = stream.panel(block.slide)
    np.testing.assert_allclose(rates.sum(), 1.0, rtol=1e-5)
    expected = sum(counts[slide].sum() / rates[panel].sum() * (rates * panel) for slide, panel in panels.items())
    np.testing.assert_allclose(expected, sum(counts.values()), rtol=1e-3, atol=1e-3)
    # Technologies in the order of their ids: Visium measures two thirds of the genes, Xenium all.
    np.testing.assert_allclose(found["scales"], [-np.log(rates[panels["second"]].sum()), 0.0], atol=1e-5)


def test_a_network_begins_by_saying_the_rate_of_a_gene(spots):
    model, stream = spots("model.neighbour_mix=none")
    found = gene_rates(stream)
    begin_with_rates(model.network, found)
    begun = model.network.count_output.log_inverse_dispersion.detach()
    assert torch.equal(begun, found["log_inverse_dispersions"])
    assert found["log_inverse_dispersions"][found["rates"] > 0].unique().numel() > 1
    batch = next(iter(stream.one_epoch()))
    technology = int(batch.masked.technologies[0])
    targets = batch.targets["neighbourhood"].asked
    loss = stream.asked["neighbourhood"].loss(
        model.network, model.network.encode(batch.masked), batch.targets["neighbourhood"], batch.masked
    )
    ids, _, answer, totals, _ = loss.answer.unbind(1)
    expected = (found["rates"][ids.long()].log() + found["scales"][technology] + totals.log()).exp()
    torch.testing.assert_close(answer.exp(), expected, rtol=1e-4, atol=1e-5)
    assert targets.weight == answer.numel()
