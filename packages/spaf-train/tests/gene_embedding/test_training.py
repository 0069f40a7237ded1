import json

import anndata
import numpy as np
import pytest

import spaf_data
from spaf_data import BuildOptions, SlideSource, build_corpus, gene_proximity, read_transcripts, simulate_bundle
from spaf_model import InputError
from spaf_train import GeneEmbeddingOptions, GeneEmbeddings, gene_embeddings, train_gene_embeddings

FEW = GeneEmbeddingOptions(dimensions=8)


@pytest.fixture(scope="module")
def transcripts(bundle):
    return read_transcripts(bundle)


@pytest.fixture(scope="module")
def truth(bundle):
    """Names of the gene pairs that share a spot."""
    planted = json.loads((bundle / "truth.json").read_text())["colocalized_pairs"]
    return [tuple(pair) for pair in planted]


@pytest.mark.parametrize("null", ["cells", "abundance"])
def test_planted_pairs_are_the_most_alike(transcripts, truth, null):
    made = gene_embeddings(gene_proximity(transcripts), GeneEmbeddingOptions(dimensions=24, null=null))
    place = {gene: number for number, gene in enumerate(made.genes["gene"])}
    close = made.association()
    others = close[np.triu_indices(len(close), 1)]
    planted = [close[place[a], place[b]] for a, b in truth]
    assert len(planted) >= 5
    assert np.median(planted) > np.quantile(others, 0.98)


def test_genes_with_few_transcripts_get_zeros(transcripts):
    counts = gene_proximity(transcripts)
    fewest = int(np.sort(counts.n_transcripts)[20])
    made = gene_embeddings(counts, GeneEmbeddingOptions(dimensions=8, min_transcripts=fewest))
    embedded = counts.n_transcripts >= fewest
    assert 0 < embedded.sum() < 60
    assert made.genes["embedded"].tolist() == embedded.tolist()
    assert made.vectors.any(axis=1).tolist() == embedded.tolist()
    assert made.vectors.dtype == np.float32
    assert made.genes["n_transcripts"].tolist() == counts.n_transcripts.tolist()


def test_a_folder_is_written_with_its_record(bundle, transcripts, tmp_path):
    seen = []
    source = SlideSource(path=bundle, slide="s")
    made = train_gene_embeddings([source], tmp_path / "genes", FEW, progress=lambda *report: seen.append(report))
    found = GeneEmbeddings.load(tmp_path / "genes")
    np.testing.assert_array_equal(found.vectors, made.vectors)
    np.testing.assert_array_equal(found.vectors, gene_embeddings(gene_proximity(transcripts), FEW).vectors)
    record = found.record
    assert {"command", "versions", "parameters", "seconds", "peak_rss_mb", "method"} <= set(record)
    assert record["parameters"]["radius"] == 3.0
    assert record["parameters"]["slides"] == ["bundle"]
    assert record["n_cells"] == transcripts.n_cells
    assert record["n_transcripts"] == transcripts.n_transcripts
    assert record["n_proximal_pairs"] == gene_proximity(transcripts).n_pairs
    assert record["slides"][0]["account"] == transcripts.account.as_dict()
    assert seen[-1] == ("s", 1.0)


def test_slides_add_up(bundle, transcripts, tmp_path):
    other = simulate_bundle(tmp_path / "other", n_cells=200, n_genes=60, seed=1, depth=100)
    sources = [SlideSource(path=path, slide=path.name) for path in (bundle, other)]
    made = train_gene_embeddings(sources, tmp_path / "genes", FEW)
    assert [slide["slide"] for slide in made.record["slides"]] == ["bundle", "other"]
    counts = gene_proximity(transcripts).n_transcripts + gene_proximity(read_transcripts(other)).n_transcripts
    assert made.genes["n_transcripts"].tolist() == counts.tolist()


def test_only_training_cells_of_a_build_are_looked_at(bundle, transcripts, tmp_path):
    build_corpus([SlideSource(path=bundle, slide="s")], tmp_path / "build", BuildOptions())
    obs = anndata.read_h5ad(tmp_path / "build" / "slides" / "s.h5ad").obs
    train = obs.index[obs["split"] == "train"].to_numpy()
    assert 0 < len(train) < len(obs)
    made = train_gene_embeddings(
        [SlideSource(path=bundle, slide="s")], tmp_path / "genes", FEW, build=tmp_path / "build"
    )
    np.testing.assert_array_equal(made.vectors, gene_embeddings(gene_proximity(transcripts, cells=train), FEW).vectors)
    assert (made.record["n_cells"], made.record["parameters"]["cells"]) == (len(train), "training split")
    with pytest.raises(InputError, match="no build with a slide 'other'; its slides are: s"):
        train_gene_embeddings([SlideSource(path=bundle, slide="other")], tmp_path / "o", FEW, build=tmp_path / "build")


def test_slides_that_are_held_out_are_left_out(bundle, tmp_path):
    other = simulate_bundle(tmp_path / "other", n_cells=150, n_genes=60, seed=1, depth=100)
    train, held = (
        SlideSource(path=bundle, slide="s", split="train"),
        SlideSource(path=other, slide="o", split="validation"),
    )
    build_corpus([train, held], tmp_path / "build")
    made = train_gene_embeddings([train, held], tmp_path / "genes", FEW, build=tmp_path / "build")
    assert [slide["slide"] for slide in made.record["slides"]] == ["s"]
    with pytest.raises(InputError, match="build has no training cell of the slides o"):
        train_gene_embeddings([held], tmp_path / "o", FEW, build=tmp_path / "build")


def one_gene(transcripts, code):
    kept = transcripts.gene == code
    return spaf_data.Transcripts.from_arrays(
        x=transcripts.x[kept], y=transcripts.y[kept], z=transcripts.z[kept], gene=np.zeros(kept.sum(), int),
        cell=transcripts.cell[kept], genes=[transcripts.genes[code]], cells=transcripts.cells,
    )  # fmt: skip


def test_what_cannot_be_embedded_is_one_sentence(transcripts):
    counts = gene_proximity(transcripts)
    with pytest.raises(InputError, match="dimensions is 60, and must be at most 59: 60 genes have 1 transcripts"):
        gene_embeddings(counts, GeneEmbeddingOptions(dimensions=60, min_transcripts=1))
    assert gene_embeddings(counts, GeneEmbeddingOptions(dimensions=59, min_transcripts=1)).dimensions == 59
    with pytest.raises(InputError, match="0 of 60 genes have 1000000 transcripts"):
        gene_embeddings(counts, GeneEmbeddingOptions(min_transcripts=1_000_000))
    most = int(counts.n_transcripts.argmax())
    with pytest.raises(InputError, match=r"1 of 1 genes have 20 transcripts .* at least 2 are needed"):
        gene_embeddings(gene_proximity(one_gene(transcripts, most)), FEW)
    with pytest.raises(InputError, match=r"No two transcripts of different genes lie within 1e-06 um"):
        gene_embeddings(gene_proximity(transcripts, radius=1e-6), FEW)


def test_options_are_checked():
    for options, sentence in [
        ({"dimensions": 0}, "dimensions must be at least 1"),
        ({"radius": float("nan")}, "radius must be above 0"),
        ({"null": "chance"}, "null must be one of cells, abundance"),
        ({"pseudo_count": 0.0}, "pseudo_count must be above 0"),
        ({"min_transcripts": 0}, "min_transcripts must be at least 1"),
    ]:
        with pytest.raises(InputError, match=sentence):
            GeneEmbeddingOptions(**options)


def test_a_source_without_transcripts_is_named(slides, tmp_path):
    slides[0].write_h5ad(tmp_path / "counts.h5ad")
    with pytest.raises(InputError, match="counts.h5ad has counts and no transcripts"):
        train_gene_embeddings([SlideSource(path=tmp_path / "counts.h5ad", slide="s")], tmp_path / "genes", FEW)
    assert not (tmp_path / "genes").exists()
    with pytest.raises(InputError, match="no slide"):
        train_gene_embeddings([], tmp_path / "genes")
