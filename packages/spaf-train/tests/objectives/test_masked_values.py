import numpy as np
import pytest
import torch
from scipy import stats

from spaf_model import InputError
from spaf_model.scgpt_spatial import HIDDEN_VALUE
from spaf_train import read_config
from spaf_train.objectives.masked_values import MaskedValuesConfig, hide_values

COUNTS = ["objectives.neighbourhood.enabled=false", "objectives.cell_values.enabled=false"]


def hidden(draw, **options):
    config = MaskedValuesConfig(enabled=True, **options)
    return hide_values(draw, config, draw.generator("masked values"))


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_generation_splits_the_genes_of_a_cell(spots, draw_of, ratio):
    """As the published collator does: int(n p) of the n genes are asked for and the rest are known, each gene once."""
    _, stream = spots()
    for draw in draw_of(stream):
        targets = hidden(draw, ratios=(ratio,), zeros=0.0)
        read = targets.hide_in(draw.tokens)
        for row in range(len(draw.inputs)):
            genes = draw.tokens.ids[row, 1 : draw.tokens.lengths[row]].tolist()
            known = read.ids[row, 1 : read.lengths[row]].tolist()
            asked = read.asked_ids[row, : read.asked_lengths[row]].tolist()
            assert sorted(known + asked) == sorted(genes)
            assert len(asked) == (int(len(genes) * ratio) if draw.inputs.asked[row] else 0)
            values = dict(zip(genes, draw.tokens.values[row, 1:].tolist(), strict=False))
            assert read.values[row, 1 : read.lengths[row]].tolist() == [values[gene] for gene in known]
            assert (read.ids[row, read.lengths[row] :] == draw.vocabulary.pad).all()
            assert read.ids[row, 0] == draw.vocabulary.cls


def test_answers_are_the_counts_of_the_genes_asked(spots, draw_of):
    _, stream = spots()
    for draw in draw_of(stream):
        targets = hidden(draw)
        read = targets.hide_in(draw.tokens)
        taken = draw.cells.take(draw.inputs.left).matrix().toarray()
        rows, columns = np.nonzero(targets.asked.is_asked.numpy())
        ids = read.asked_ids.numpy()[rows, columns]
        np.testing.assert_array_equal(targets.asked.counts.numpy()[rows, columns], taken[rows, ids])
        assert targets.weight == read.asked_lengths.sum() == rows.size


def test_zeros_are_of_genes_that_the_slide_measures(spots, draw_of):
    _, stream = spots()
    found = 0
    for draw in draw_of(stream):
        targets = hidden(draw, zeros=2.0)
        read = targets.hide_in(draw.tokens)
        for row, slide in enumerate(draw.cells.slide[draw.inputs.left]):
            asked = read.asked_ids[row, : read.asked_lengths[row]].numpy()
            assert np.unique(asked).size == asked.size
            assert draw.cells.panels[slide][asked].all()
            found += int((targets.asked.counts[row, : asked.size] == 0).sum())
    assert found > 50


def test_perception_hides_in_place(spots, draw_of):
    _, stream = spots()
    for draw in draw_of(stream):
        targets = hidden(draw, task="perception", ratios=(0.5,))
        read = targets.hide_in(draw.tokens)
        assert read.asked_ids is None
        torch.testing.assert_close(read.ids, draw.tokens.ids)
        assert (read.values[targets.hidden] == HIDDEN_VALUE).all()
        assert not targets.hidden[:, 0].any()
        torch.testing.assert_close(read.values[~targets.hidden], draw.tokens.values[~targets.hidden])
        assert not targets.hidden[~torch.from_numpy(draw.inputs.asked)].any()


def test_the_loss_is_the_likelihood_of_scipy(spots):
    """Negative binomial with mean N exp(x + b + s) and inverse dispersion exp(r), for genes that were asked alone."""
    model, stream = spots(*COUNTS)
    network, objective = model.network, stream.asked["masked_values"]
    for batch in stream.one_epoch():
        targets = batch.targets["masked_values"]
        with torch.no_grad():
            states = network.encode(batch.masked)
            found = objective.loss(network, states, targets, batch.masked)
            numbers = network.token_values(states, batch.masked, targets.positions(batch.masked))
        output, expected, place = network.count_output.requires_grad_(False), 0.0, 0
        for row, column in targets.asked.is_asked.nonzero().tolist():
            gene, count = int(targets.asked.ids[row, column]), float(targets.asked.counts[row, column])
            scale = output.technology_scale[batch.masked.technologies[row]]
            mean = float(batch.masked.totals[row] * (numbers[place] + output.log_rate[gene] + scale).exp())
            inverse = float(output.log_inverse_dispersion[gene].exp())
            expected -= stats.nbinom.logpmf(count, inverse, inverse / (inverse + mean))
            place += 1
        assert float(found.sum) == pytest.approx(expected, rel=1e-3)
        assert found.weight == place


def test_bins_are_judged_by_squared_error_as_published(spots):
    model, stream = spots(*COUNTS, "model.output=bins", "model.neighbour_mix=none", "model.value_style=bins")
    batch = next(iter(stream.one_epoch()))
    targets = batch.targets["masked_values"]
    with torch.no_grad():
        states = model.network.encode(batch.masked)
        found = stream.asked["masked_values"].loss(model.network, states, targets, batch.masked)
        numbers = model.network.token_values(states, batch.masked, targets.positions(batch.masked))
    truth = targets.asked.values[targets.asked.is_asked]
    assert float(found.sum) == pytest.approx(float((numbers - truth).square().sum()), rel=1e-5)


def test_context_may_not_be_hidden():
    with pytest.raises(InputError, match="needs the technology of every cell"):
        read_config("scgpt_spatial", overrides=["sampling.context_dropout=0.2"])


def test_a_model_that_cannot_be_asked_for_genes_is_refused():
    with pytest.raises(InputError, match=r"needs model\.generative"):
        read_config("scgpt_spatial", overrides=["model.generative=false"])
    read_config("scgpt_spatial", overrides=["model.generative=false", "objectives.masked_values.task=perception"])


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("ratios=[]", "at least one"),
        ("ratios=[1.5]", "above 0 and below 1"),
        ("task='both'", "task must be"),
        ("zeros=-1", "zeros"),
    ],
)
def test_impossible_options_are_named(option, sentence):
    with pytest.raises(InputError, match=sentence):
        read_config("scgpt_spatial", overrides=[f"objectives.masked_values.{option}"])
