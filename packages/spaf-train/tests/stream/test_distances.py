"""What is trained and judged follows the distances of the corpus."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from spaf_data import Distances
from spaf_model import InputError, SpatialFormer
from spaf_train import BatchStream, EvaluationOptions, ObjectivesConfig, SamplingConfig, evaluate, pretrain, read_config
from spaf_train.evaluation.pairs import matched_pairs, radii_of
from spaf_train.stream.distances import distances_of
from spaf_train.stream.samplers import draw_pairs


def test_options_take_the_place_of_the_distances_of_the_corpus_and_are_held_against_its_graph():
    corpus = Distances(positive=120.0)
    assert distances_of("sampling", corpus) == corpus
    assert distances_of("sampling", corpus, hard_min=200.0).hard_min == 200.0
    with pytest.raises(InputError, match=r"sampling: hard_min must be above the radius of neighbours \(120 um\)"):
        distances_of("sampling", corpus, hard_min=80.0)
    with pytest.raises(InputError, match=r"hard_min must be above the radius of neighbours of the corpus \(120 um\)"):
        distances_of("neighbours", corpus, radius=30.0, hard_min=80.0)
    with pytest.raises(InputError, match=r"radius must be at most that of the corpus \(120 um\), not 130 um"):
        distances_of("neighbours", corpus, radius=130.0)


def test_hard_negatives_of_a_larger_radius_are_no_neighbours(spread_corpus, vocabulary, read_by):
    stream = BatchStream(
        spread_corpus, read_by(vocabulary), SamplingConfig(), ObjectivesConfig(), split="train", seed=0
    )
    assert stream.distances == spread_corpus.distances == Distances(positive=120.0)
    blocks = [spread_corpus.read(ref) for ref in spread_corpus.block_refs("train")]
    offsets = np.cumsum([0, *(block.n_cells for block in blocks)])[:-1]
    generators = [np.random.default_rng(k) for k in range(len(blocks))]
    config = SamplingConfig(easy_negatives=0)
    inputs = draw_pairs(blocks, offsets, generators, config, stream.distances)
    xy = np.concatenate([block.coordinates for block in blocks])
    far = np.linalg.norm(xy[inputs.left] - xy[inputs.right], axis=1)[inputs.label == 0]
    assert len(far) > 100
    assert far.min() >= 320.0
    assert far.max() <= 600.0


def test_equal_figures_at_equal_proportions(corpus, spread_corpus, vocabulary, read_by):
    """A slide four times as large, with distances four times as large, gives the same batches."""
    batches = [
        next(
            BatchStream(
                of, read_by(vocabulary), SamplingConfig(), ObjectivesConfig(), split="train", seed=0
            ).one_epoch()
        )
        for of in (corpus, spread_corpus)
    ]
    assert batches[0].targets["pairs"].labels.tolist() == batches[1].targets["pairs"].labels.tolist()
    assert batches[0].unmasked.ids.tolist() == batches[1].unmasked.ids.tolist()


def test_a_run_says_the_distances_it_took_from_the_corpus(config, spread_corpus, tmp_path):
    pretrain(config, spread_corpus.path, tmp_path / "run")
    sampling = json.loads((tmp_path / "run" / "run.json").read_text())["parameters"]["config"]["sampling"]
    assert (sampling["hard_min"], sampling["hard_max"], sampling["easy_min"]) == (320.0, 600.0, 600.0)
    assert "1 at 320 to 600 um, 1 beyond 600 um" in (tmp_path / "run" / "model" / "card.md").read_text()
    told = dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, hard_min=80.0))
    with pytest.raises(InputError, match=r"sampling: hard_min must be above the radius of neighbours \(120 um\)"):
        pretrain(told, spread_corpus.path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_patches_and_contrast_follow_the_corpus(spread_corpus, tmp_path):
    path = tmp_path / "contrast.toml"
    path.write_text(
        "[model]\nwidth = 16\nn_layers = 1\nn_heads = 2\npair_input = 'separate'\npair_rank = 8\n"
        "colocalization_rank = 4\n[sampling]\ninput = 'patches'\n[sampling.patches]\nsites = 8\ncells = 6\n"
        "[objectives.contrast]\nenabled = true\n[objectives.pairs]\nenabled = false\n"
        "[run]\nsteps = 2\nlog_every = 1\nvalidation_inputs = 100\nbest_metric = 'last'\n"
    )
    config = read_config(path)
    pretrain(config, spread_corpus.path, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["parameters"]["config"]["sampling"]["radius"] == 120.0
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["contrast_probability"]) > 0.0
    assert float(row["contrast_hard"]) > 0.0
    for radius, message in (
        (0.01, r"No two training cells of .* lie within 0.01 um \(sampling.radius\)"),
        (200.0, "sampling: radius must be at most that of the corpus"),
    ):
        told = dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, radius=radius))
        with pytest.raises(InputError, match=message):
            pretrain(told, spread_corpus.path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_smaller_radius_leaves_the_nearer_pairs(corpus, vocabulary, read_by):
    def positives(radius):
        stream = BatchStream(
            corpus, read_by(vocabulary), SamplingConfig(radius=radius), ObjectivesConfig(), split="train", seed=0
        )
        return sum(int(batch.targets["pairs"].labels.sum()) for batch in stream.one_epoch())

    expected = 0
    for ref in corpus.block_refs("train"):
        block = corpus.read(ref)
        left, right = block.coordinates[block.positive_pairs.T]
        expected += int((np.linalg.norm(left - right, axis=1) <= 15.0).sum())
    assert 0 < positives(15.0) == expected < positives(None) == positives(30.0)


def test_radii_of_evaluation_are_those_around_the_corpus():
    assert radii_of(Distances()) == (10.0, 20.0, 30.0, 50.0)
    assert radii_of(Distances(positive=25.0)) == (10.0, 20.0, 25.0, 30.0, 50.0)
    assert radii_of(Distances(positive=120.0)) == (40.0, 80.0, 120.0, 200.0)
    assert radii_of(Distances(hard_min=40.0)) == (10.0, 20.0, 30.0)
    options = EvaluationOptions().following(Distances(positive=120.0))
    assert options.radii == (40.0, 80.0, 120.0, 200.0)
    with pytest.raises(InputError, match=r"radii must be below the least distance of hard negatives \(80 um\), not 90"):
        EvaluationOptions(radii=(30.0, 90.0)).following(Distances())
    with pytest.raises(InputError, match="radii must be below"):
        matched_pairs(np.zeros((3, 2)), radii=(100.0,))


def test_pairs_of_a_larger_radius_are_judged(model_dir, spread_corpus):
    options = EvaluationOptions(max_pairs=60, n_replicates=10, max_gene_pairs=500)
    result = evaluate(SpatialFormer.from_pretrained(model_dir), spread_corpus, options=options)
    assert result.cell_pairs is not None
    scores = result.cell_pairs.evaluation.scores
    assert set(scores["radius"]) == {40.0, 80.0, 120.0, 200.0}
    assert set(result.cell_pairs.calibration["radius"]) == {120.0}
    assert "PCA pair network" in set(scores["score"])
    assert result.record["parameters"]["distances"]["hard_min"] == 320.0
