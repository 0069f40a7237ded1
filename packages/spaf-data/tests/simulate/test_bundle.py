import itertools
import json

import numpy as np
import pandas as pd
import pytest

from spaf_data import InputError, read_transcripts, simulate_bundle
from spaf_data.simulate import bundle as bundle_module
from spaf_data.simulate.recipe import PATTERNS


def test_same_seed_same_bytes(bundle, tmp_path):
    again = simulate_bundle(tmp_path / "again", n_cells=400, n_genes=40, seed=3)
    other = simulate_bundle(tmp_path / "other", n_cells=400, n_genes=40, seed=4)
    for file in bundle.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes(), file.name
        if file.name != "gene_panel.json":  # the panel is a matter of its size alone
            assert file.read_bytes() != (other / file.name).read_bytes(), file.name


def test_shares_are_those_of_the_recipe(transcripts):
    account = transcripts.account
    assert account.controls / account.read == pytest.approx(0.005, abs=0.002)
    assert account.low_quality / account.read == pytest.approx(0.14, abs=0.01)
    assert account.unassigned / account.read == pytest.approx(0.043, abs=0.005)
    assert 90 < np.median(np.diff(transcripts.offsets)) < 160


def mean_distance(transcripts, gene_a, gene_b):
    """Mean over cells of the distance between each transcript of a gene and the nearest of another."""
    place = np.column_stack([transcripts.x, transcripts.y, transcripts.z])
    a, b = transcripts.genes.index(gene_a), transcripts.genes.index(gene_b)
    nearest = []
    for start, stop in zip(transcripts.offsets[:-1], transcripts.offsets[1:], strict=True):
        gene = transcripts.gene[start:stop]
        apart = np.linalg.norm(place[start:stop][gene == a][:, None] - place[start:stop][gene == b], axis=-1)
        if apart.size:
            nearest.append(apart.mean())
    return np.mean(nearest)


def test_planted_pairs_are_close_and_abundant_pairs_are_not(bundle, transcripts):
    truth = json.loads((bundle / "truth.json").read_text())
    together = [mean_distance(transcripts, *pair) for pair in truth["colocalized_pairs"]]
    apart = [mean_distance(transcripts, *pair) for pair in truth["abundant_pairs"]]
    assert len(together) == len(apart) == 5
    assert max(together) < 0.8 * min(apart)
    # Genes of two planted pairs are as far from each other as genes that are spread over the cell.
    pairs = truth["colocalized_pairs"]
    strangers = [mean_distance(transcripts, a[0], b[1]) for a, b in itertools.permutations(pairs, 2)]
    assert np.mean(strangers) == pytest.approx(np.mean(apart), rel=0.05)


def test_markers_are_expressed_by_their_type(bundle, transcripts):
    truth = json.loads((bundle / "truth.json").read_text())
    kind = pd.read_parquet(bundle / "truth_cells.parquet").set_index("cell_id").cell_type.loc[transcripts.cells]
    kind = kind.to_numpy()[transcripts.cell]
    for i, markers in enumerate(truth["markers"]):
        marker = np.isin(np.array(transcripts.genes)[transcripts.gene], markers)
        here = kind == f"type {i}"
        if here.any():
            assert marker[here].mean() > 4 * marker[~here].mean()


def test_genes_of_patterns_lie_where_they_should(tmp_path):
    folder = simulate_bundle(
        tmp_path / "bundle", n_cells=60, n_genes=80, seed=2, depth=300, n_pattern_genes=1, pattern_fraction=1.0
    )
    truth, found = json.loads((folder / "truth.json").read_text()), read_transcripts(folder)
    radius = np.sqrt(found.areas / np.pi)[found.cell]
    nucleus = np.sqrt(pd.read_parquet(folder / "cells.parquet").set_index("cell_id").nucleus_area / np.pi)
    nucleus = nucleus.loc[found.cells].to_numpy()[found.cell]
    x, y = found.x - found.centroids[found.cell, 0], found.y - found.centroids[found.cell, 1]
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    of = {name: found.gene == found.genes.index(genes[0]) for name, genes in truth["patterns"].items()}
    assert list(of) == list(PATTERNS)
    assert found.in_nucleus[of["nuclear"]].mean() > 0.99
    ring = (distance - nucleus) / (radius - nucleus)
    assert np.quantile(ring[of["perinuclear"]], [0.01, 0.99]) == pytest.approx([0, 0.25], abs=0.02)
    assert np.quantile(ring[of["peripheral"]], [0.01, 0.99]) == pytest.approx([0.75, 1], abs=0.02)
    assert np.quantile((distance / radius)[of["central"]], 0.99) < 0.34
    frame = pd.DataFrame({"cell": found.cell, "re": np.cos(angle), "im": np.sin(angle)})[of["polarised"]]
    mean = frame.groupby("cell")[["re", "im"]].mean()
    assert np.hypot(mean["re"], mean["im"]).min() > 0.7
    spots = np.column_stack([x, y])[of["punctate"] & (found.cell == found.cell[of["punctate"]][0])]
    nearest = np.sort(np.hypot(*(spots[:, None] - spots).transpose(2, 0, 1)), axis=1)[:, 1]
    assert np.median(nearest) < 0.8
    assert truth["recipe"]["n_pattern_genes"] == 1
    outlines = pd.read_parquet(folder / "nucleus_boundaries.parquet")
    assert outlines.groupby("cell_id").size().eq(25).all()


def test_without_patterns_nothing_says_so(bundle):
    truth = json.loads((bundle / "truth.json").read_text())
    assert "patterns" not in truth
    assert "n_pattern_genes" not in truth["recipe"]
    assert not (bundle / "cell_boundaries.parquet").exists()


def test_chunks_join(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "_CELLS_PER_CHUNK", 64)
    bundle = simulate_bundle(tmp_path / "bundle", n_cells=150, n_genes=40, seed=0, depth=60)
    table = pd.read_parquet(bundle / "transcripts.parquet")
    assert table.transcript_id.is_unique
    found = read_transcripts(bundle)
    assert found.n_cells == 150
    apart = np.hypot(found.x - found.centroids[found.cell, 0], found.y - found.centroids[found.cell, 1])
    assert np.all(apart**2 < found.areas[found.cell] / np.pi + 1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_genes": 29}, "n_genes must be at least 30"),
        ({"n_pattern_genes": 3}, "n_genes must be at least 48 for 38 planted genes"),
        ({"n_pattern_genes": -1}, "n_pattern_genes must not be negative"),
        ({"pattern_fraction": 2.0}, "pattern_fraction must lie between 0 and 1"),
        ({"n_cells": 0}, "n_cells must be at least 1"),
        ({"depth": 0.0}, "depth must be above 0"),
    ],
)
def test_impossible_recipes(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        simulate_bundle(tmp_path / "bundle", **{"n_cells": 10, "n_genes": 40, "seed": 0, **change})
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InputError, match="is there already"):
        simulate_bundle(tmp_path, n_cells=10, n_genes=40, seed=0)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module, "make_transcripts", fail)
    with pytest.raises(OSError, match="No space"):
        simulate_bundle(tmp_path / "bundle", n_cells=10, n_genes=40, seed=0)
    assert not list(tmp_path.iterdir())
