import dataclasses

import numpy as np
import pytest
import torch

from spaf_model import InputError
from spaf_model.scgpt_spatial import distance_weights
from spaf_train import read_config

ALONE = ["objectives.masked_values.enabled=false", "objectives.cell_values.enabled=false"]


def test_weights_are_those_of_a_slow_loop():
    rng = np.random.default_rng(0)
    distances = np.sort(rng.uniform(1, 50, (5, 8)), axis=1)
    distances[1, 5:] = np.inf
    distances[2] = np.inf
    found = distance_weights(distances, weights="gaussian", width=1.3)
    for row, own in enumerate(distances):
        there = own[np.isfinite(own)]
        if not there.size:
            assert (found[row] == 0).all()
            continue
        expected = np.exp(-0.5 * (there / there[:6].mean() / 1.3) ** 2)
        np.testing.assert_allclose(found[row, : there.size], expected / expected.sum(), rtol=1e-5)
        assert (found[row, there.size :] == 0).all()
    uniform = distance_weights(distances, weights="uniform", width=1.0)
    np.testing.assert_allclose(uniform[1, :5], 0.2)


def test_a_neighbourhood_is_of_the_nearest_cells_of_the_slide(spots):
    model, stream = spots(*ALONE, "objectives.neighbourhood.weights=uniform", "model.neighbour_weights=uniform")
    everything = stream.all_cells()
    for batch in stream.one_epoch():
        targets = batch.targets["neighbourhood"]
        with torch.no_grad():
            states = model.network.pool(model.network.encode(batch.masked), batch.masked, "cls")
            around = (states[targets.near] * targets.weights.unsqueeze(-1)).sum(dim=1)
        for row in range(targets.near.shape[0]):
            used = targets.near[row][targets.weights[row] > 0]
            assert used.unique().numel() == used.numel()
            assert int(targets.asked.rows[row]) not in used.tolist()
            torch.testing.assert_close(around[row], states[used].mean(dim=0))
    assert len(everything)


def test_genes_that_are_not_measured_are_not_asked(spots):
    _, stream = spots(*ALONE, "objectives.neighbourhood.genes=24")
    seen = set()
    for batch in stream.one_epoch():
        targets, technology = batch.targets["neighbourhood"], int(batch.masked.technologies[0])
        genes = targets.asked.ids.expand(targets.asked.is_asked.shape)[targets.asked.is_asked].unique().numel()
        seen.add((technology, genes))
    assert sorted(genes for _, genes in seen) == [16, 24]


def test_what_a_cell_has_itself_does_not_change_its_neighbourhood(spots):
    """But for its number of counts, which says how many are to be expected in all."""
    model, stream = spots(*ALONE, "sampling.windows.cells=1")
    batch = next(iter(stream.one_epoch()))
    targets = batch.targets["neighbourhood"]
    centre = int(targets.asked.rows[0])
    values = batch.masked.values.clone()
    values[centre, 1:] += 3.0
    answers = []
    for read in (batch.masked, dataclasses.replace(batch.masked, values=values)):
        with torch.no_grad():
            answers.append(stream.asked["neighbourhood"].loss(model.network, model.network.encode(read), targets, read))
    torch.testing.assert_close(answers[0].sum, answers[1].sum)


def test_gradients_stop_at_the_neighbours_where_asked(spots):
    for stop in (False, True):
        model, stream = spots(*ALONE, f"objectives.neighbourhood.stop_gradient={str(stop).lower()}")
        batch = next(iter(stream.one_epoch()))
        hidden = model.network.encode(batch.masked)
        stream.asked["neighbourhood"].loss(
            model.network, hidden, batch.targets["neighbourhood"], batch.masked
        ).sum.backward()
        touched = model.network.layers[0].expand.weight.grad
        assert (touched is None or not bool(touched.any())) == stop


def test_the_baseline_is_the_weighted_share_of_the_neighbours(spots, draw_of):
    _, stream = spots(*ALONE)
    objective = stream.asked["neighbourhood"]
    draw = next(draw_of(stream))
    targets = objective.targets(draw)
    counts = draw.cells.take(draw.inputs.left).matrix().toarray()
    row = 3
    near, weights = targets.near[row].numpy(), targets.weights[row].numpy().astype(float)
    mixed, totals = weights @ counts[near], targets.weights.numpy().astype(float) @ np.ones(near.size)
    everyone = np.einsum("nk,nk->n", targets.weights.numpy(), counts.sum(axis=1)[targets.near.numpy()])
    prior = everyone.mean() / near.size
    rates = objective._rates[targets.asked.ids.numpy()]
    panel = draw.cells.panels[draw.cells.slide[draw.inputs.left[0]]]
    expected = (mixed[targets.asked.ids.numpy()] + prior * rates / objective._rates[panel].sum()) / (
        mixed.sum() + prior
    )
    np.testing.assert_allclose(targets.baseline[row].numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(totals, 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["sampling.input=cells"], "sampling.input must be windows"),
        (["sampling.windows.neighbours=3"], "reads 3 of them"),
        (["objectives.neighbourhood.neighbours=6"], "model.n_neighbours 30"),
        (["model.neighbour_weights=uniform"], "a model is to be used as it was trained"),
        (["model.neighbourhood_decoder=false", "model.neighbour_mix=none"], "needs model.neighbourhood_decoder"),
        (["model.output=bins"], "output = counts and neighbourhood_decoder = true, or neighbour_mix = none"),
        (["objectives.neighbourhood.width=0"], "width must be above 0"),
    ],
)
def test_what_does_not_go_together_is_said(options, sentence):
    with pytest.raises(InputError, match=sentence):
        read_config("scgpt_spatial", overrides=options)


def test_counts_that_are_joined_are_those_that_the_model_joins_when_it_is_used(spots, draw_of, two_panels):
    """The answers of training are those of `expression` on the same slide, but for what the slide's mean state is."""
    model, stream = spots(*ALONE, "model.neighbour_mix=learnt", "sampling.windows.cells=1000")
    objective, network = stream.asked["neighbourhood"], model.network
    for draw in draw_of(stream):
        targets = objective.targets(draw)
        slides = draw.cells.slide[draw.inputs.left]
        counts = draw.cells.take(draw.inputs.left).matrix().toarray()
        whole = objective._slides[slides[0]]
        ids, row = targets.asked.ids.numpy(), 2
        np.testing.assert_allclose(targets.seen.of_slide[row], whole[ids] - counts[targets.asked.rows[row]][ids])
        panel = draw.cells.panels[slides[0]]
        rows = targets.asked.rows.numpy()
        np.testing.assert_allclose(targets.seen.slide_totals, whole[panel].sum() - counts[rows].sum(axis=1), rtol=1e-6)
        technologies = draw.tokens.technologies[targets.asked.rows]
        with torch.no_grad():
            around = targets.seen.around(network, technologies, targets.asked.is_asked)
            weights = network.neighbour_mix.weights(targets.seen.distances, technologies)[row].numpy()
        near = targets.near[row].numpy()
        np.testing.assert_allclose(around.counts[row], weights @ counts[near][:, ids], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(around.totals[row], weights @ counts[near].sum(axis=1), rtol=1e-4)
        assert float(around.n_effective[row]) == pytest.approx(1 / float((weights**2).sum()), rel=1e-4)


def test_the_width_the_gate_and_the_prior_are_trained(spots):
    model, stream = spots(*ALONE, "model.neighbour_mix=learnt")
    batch = next(iter(stream.one_epoch()))
    hidden = model.network.encode(batch.masked)
    stream.asked["neighbourhood"].loss(
        model.network, hidden, batch.targets["neighbourhood"], batch.masked
    ).sum.backward()
    for name, parameter in model.network.neighbour_mix.named_parameters():
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name
    copy = batch.targets["neighbourhood"].to(torch.device("cpu"))
    torch.testing.assert_close(copy.seen.counts, batch.targets["neighbourhood"].seen.counts)


def test_slides_are_not_counted_for_models_that_do_not_join_them(spots):
    _, stream = spots(*ALONE, "model.neighbour_mix=none")
    assert set(stream.asked["neighbourhood"].prepare(stream, stream, None)) == {
        "rates",
        "scales",
        "log_inverse_dispersions",
    }
    _, stream = spots(*ALONE, "model.neighbour_mix=given")
    prepared = stream.asked["neighbourhood"].prepare(stream, stream, None)
    assert set(prepared) - {"rates", "scales", "log_inverse_dispersions"} == {"slides_train", "slides_validation"}
