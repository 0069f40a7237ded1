"""The report judges pairs at the distances of the corpus."""

import json
import shutil

import numpy as np
import pytest

import spaf_data
from spaf_analysis.cell_pairs import benchmark_cell_pairs
from spaf_analysis.cell_pairs.section import pair_headline, pair_numbers
from spaf_analysis.cell_pairs.tool import distances_of
from spaf_analysis.report.inputs import read_inputs
from spaf_data import Distances
from spaf_model import SpatialFormer, SpatialFormerConfig, Vocabulary


@pytest.fixture
def spread(tissue):
    """The tissue four times as large."""
    tissue.obsm["spatial"] = 4.0 * tissue.obsm["spatial"]
    for kind in ("species", "assay", "tissue", "condition"):
        tissue.obs[kind] = "unknown"
    return tissue


@pytest.fixture
def model(tissue):
    vocabulary = Vocabulary.build(list(tissue.var_names), scale=np.ones(tissue.n_vars))
    config = SpatialFormerConfig(width=16, n_layers=1, n_heads=2, conv_kernel=5, colocalization_rank=4)
    model = SpatialFormer(config, vocabulary, seed=0)
    model.network.eval()
    return model


def test_a_larger_radius_is_judged_and_named(spread, model):
    far = Distances(positive=120.0)
    benchmark = benchmark_cell_pairs(spread, model, distances=far, max_pairs=40, n_replicates=10)
    assert set(benchmark.evaluation.scores["radius"]) == {80.0, 120.0, 200.0}  # cells are 80 um apart
    assert "within 120 µm" in pair_headline(benchmark)
    assert "more than 600 µm apart" in pair_headline(benchmark)
    numbers = pair_numbers(benchmark)
    assert numbers["pair_auroc_120um"] is not None
    assert "pair_auroc_30um" not in numbers
    usual = benchmark_cell_pairs(spread, model, max_pairs=40, n_replicates=10)
    assert usual.reason.endswith("region has no neighbouring cells")


def test_distances_come_from_the_corpus_of_the_build_or_from_its_record(stages, tmp_path):
    def distances(build):
        return read_inputs(stages.embedded, model=stages.model, run=stages.run, build=build).distances

    assert distances(stages.build) == Distances()
    build = shutil.copytree(stages.build, tmp_path / "build")
    slides = sorted((build / "slides").glob("*.h5ad"))
    wide = Distances(positive=20.0, hard_min=40.0, hard_max=70.0, easy_min=90.0)
    spaf_data.write_corpus(slides, build / "corpus", distances=wide, overwrite=True)
    assert distances(build) == wide
    shutil.rmtree(build / "corpus")
    assert distances(build) == Distances()
    record = json.loads((build / "build.json").read_text())
    record["distances"] = {"positive": 20.0, "hard_min": 40.0, "hard_max": 70.0, "easy_min": 90.0}
    (build / "build.json").write_text(json.dumps(record))
    assert distances(build) == wide
    del record["distances"]
    record["parameters"]["options"]["radius"] = 120.0
    (build / "build.json").write_text(json.dumps(record))
    assert distances(build) == Distances(positive=120.0)


def test_spots_on_a_grid_are_neighbours_one_spacing_away(tissue):
    """Of spots 200 um apart none would be within the 50 um of cells."""
    del tissue.uns["spatial_neighbors"]
    assert distances_of(tissue) == Distances()
    column, row = np.meshgrid(np.arange(20), np.arange(15))
    tissue.obsm["spatial"] = 200.0 * np.c_[column.ravel(), row.ravel()]
    assert distances_of(tissue).positive == pytest.approx(230)
    rng = np.random.default_rng(0)
    tissue.obsm["spatial"] = tissue.obsm["spatial"] + rng.normal(0, 8, (tissue.n_obs, 2))  # read off an image
    assert 200 < distances_of(tissue).positive < 270
    tissue.obsm["spatial"] = np.round(tissue.obsm["spatial"], -2)
    benchmark = benchmark_cell_pairs(tissue, max_pairs=40, n_replicates=10)
    assert 230.0 in {round(radius) for radius in benchmark.evaluation.scores["radius"]}
