import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_data import (
    Corpus,
    InputError,
    ReadOptions,
    SlideSource,
    build_corpus,
    read_counts,
    slide_column,
    slide_sources,
    slides_of_cells,
    spatial_neighbors,
    split_regions,
    write_corpus,
)
from spaf_data.slides import n_impossible

N = 225


def cells(seed=0, n=N, step=12.0):
    """Cells on a jittered lattice: no two nearer than a few um, as in tissue."""
    rng = np.random.default_rng(seed)
    side = int(np.sqrt(n))
    places = np.stack(np.divmod(np.arange(n), side), axis=1) * step + rng.uniform(-3, 3, (n, 2))
    counts = sparse.csr_matrix(rng.poisson(8, (n, 10)).astype(np.float32))
    names = [f"s{seed}-c{i}" for i in range(n)]
    return anndata.AnnData(
        counts,
        obs=pd.DataFrame({"fov": np.arange(n) % 3, "tissue": f"tissue{seed}"}, index=names),
        var=pd.DataFrame(index=[f"G{i}" for i in range(10)]),
        obsm={"spatial": places},
    )


def two(column="sample_id"):
    """Two slides in one frame, their cells between each other."""
    return anndata.concat([cells(0), cells(1)], label=column, keys=["A", "B"])


@pytest.mark.parametrize("column", ["slide", "sample_id", "Library ID", "section"])
def test_slides_in_one_object_stay_apart(column):
    slide = read_counts(two(column))
    assert slide.obs["slide"].value_counts().to_dict() == {"A": N, "B": N}
    assert slide.uns["spaf"]["parameters"]["slide_key"] == column
    assert slide.obs.groupby("slide", observed=True)["tissue"].unique().str[0].to_dict() == {
        "A": "tissue0",
        "B": "tissue1",
    }
    spatial_neighbors(slide)
    left, right = slide.obsp["spatial_connectivities"].nonzero()
    of = slide.obs["slide"].astype(str).to_numpy()
    assert (of[left] == of[right]).all()
    alone = read_counts(cells(0))
    spatial_neighbors(alone)
    assert slide.obsp["spatial_connectivities"].nnz > alone.obsp["spatial_connectivities"].nnz


def test_slides_that_cannot_be_told_are_asked_about(tmp_path):
    mixed = two("batch_name")
    question = r"several slides\? Name the obs column .* slide_key \(--slide-key\) \(such as .*'batch_name'"
    with pytest.raises(InputError, match=question):
        read_counts(mixed)
    with pytest.raises(InputError, match=r"several slides\?"):
        spatial_neighbors(mixed)
    assert read_counts(mixed, options=ReadOptions(slide_key="batch_name")).obs["slide"].nunique() == 2
    assert read_counts(mixed, options=ReadOptions(one_slide=True)).n_obs == 2 * N
    with pytest.raises(InputError, match="no obs column 'nothing'"):
        read_counts(mixed, options=ReadOptions(slide_key="nothing"))
    read_counts(cells(0))  # one slide is one slide


def test_each_slide_of_a_file_is_a_slide_of_a_build(tmp_path):
    two().write_h5ad(tmp_path / "both.h5ad")
    for name, seed in (("A", 0), ("B", 1)):
        cells(seed).write_h5ad(tmp_path / f"{name}.h5ad")
    record = build_corpus([SlideSource(path=tmp_path / "both.h5ad", slide="both")], tmp_path / "out")
    assert [slide["slide"] for slide in record["slides"]] == ["both-A", "both-B"]
    apart = build_corpus([SlideSource(path=tmp_path / f"{n}.h5ad", slide=n) for n in "AB"], tmp_path / "apart")
    assert [s["split"] for s in record["slides"]] == [s["split"] for s in apart["slides"]]
    assert record["n_cells"] == apart["n_cells"]
    corpora = [Corpus(tmp_path / name / "corpus") for name in ("out", "apart")]
    assert corpora[0].manifest.totals() == corpora[1].manifest.totals()
    assert list(corpora[0].slides.values()) == list(corpora[1].slides.values())
    assert [source.slide for source in slide_sources(inputs=[tmp_path / "both.h5ad"])] == ["both"]
    named = build_corpus(slide_sources(inputs=[tmp_path / "both.h5ad"]), tmp_path / "named")
    assert [slide["slide"] for slide in named["slides"]] == ["A", "B"], "as the object calls them"


def test_a_corpus_of_a_table_of_two_slides_is_that_of_two_tables(tmp_path):
    tables = [read_counts(two())]
    tables.append([read_counts(cells(seed), slide=name) for seed, name in ((0, "A"), (1, "B"))])
    corpora = []
    for number, slides in enumerate(([tables[0]], tables[1])):
        for slide in slides:
            slide.obs["split"] = split_regions(
                slide.obsm["spatial"], validation_fraction=0.3, gap=40.0, slide=slide.obs["slide"]
            )
        corpora.append(write_corpus(slides, tmp_path / str(number), colocalization_key=None))
    shards = [[(shard.name, shard.sha256) for shard in corpus.manifest.shards] for corpus in corpora]
    assert shards[0] == shards[1]


def test_columns_that_name_slides():
    obs = pd.DataFrame({"fov": [1, 2, 1, 2], "slide": ["unknown"] * 4, "sample": ["x"] * 4, "section": list("aabb")})
    assert slide_column(obs) == "section"
    assert slide_column(obs[["fov"]]) is None
    assert slide_column(obs[["sample"]]) == "sample"
    assert slides_of_cells(pd.DataFrame({"sample": [1.0, 2.0, 1.0, 2.0]})).tolist() == ["1", "2", "1", "2"]
    with pytest.raises(InputError, match=r"no slide in obs column 'sample' for 1 of its 4 cells"):
        slide_column(pd.DataFrame({"sample": ["a", None, "a", "b"]}))


@pytest.mark.parametrize("word", ["nan", "unknown", "", "NA", "None"])
def test_words_for_no_slide_beside_slides_are_asked_about(word):
    obs = pd.DataFrame({"sample": ["a", "a", word, "b", "b", "b"]}, index=[f"c{n}" for n in range(6)])
    for column in (obs["sample"], obs["sample"].astype("category")):
        with pytest.raises(
            InputError, match=r"no slide in obs column 'sample' for 1 of its 6 cells, the first is 'c2'"
        ):
            slide_column(pd.DataFrame({"sample": column}))
    assert slide_column(pd.DataFrame({"sample": [word] * 4})) == "sample", "one slide, whatever it is called"


def test_spaces_around_a_name_make_no_other_slide():
    assert slides_of_cells(pd.DataFrame({"sample": ["a", " a", "a ", "b"] * 2})).tolist() == list("aaab") * 2


@pytest.mark.parametrize("overlap", [0.15, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("n", [900, 6400])
def test_slides_that_overlap_at_a_corner_are_several(n, overlap):
    one, other = cells(0, n=n).obsm["spatial"], cells(1, n=n).obsm["spatial"]
    apart = other + [20_000.0, 0.0]
    across = other + [(1 - overlap) * np.ptp(one[:, 0]), 0.0]
    assert n_impossible(np.vstack([one, apart])) == 0
    n_overlapping = 2 * overlap * n
    assert 0.01 * n_overlapping < n_impossible(np.vstack([one, across, apart])) < 0.5 * n_overlapping


@pytest.mark.parametrize("n", [100, 300, 2000])
def test_few_near_cells_all_over_a_slide_are_of_one_slide(n):
    rng = np.random.default_rng(3)
    one = cells(0, n=6400).obsm["spatial"]
    twice = one[rng.choice(len(one), n // 100 + 2, replace=False)] + rng.uniform(-0.5, 0.5, (n // 100 + 2, 2))
    assert n_impossible(np.vstack([one, twice])) == 0
    assert n_impossible(rng.uniform(0, 1000, (min(n, 250), 2))) == 0, "scattered, and few"


@pytest.mark.parametrize("scale", [1.0, 5.0, 0.01])
def test_what_is_impossible_does_not_depend_on_the_unit(scale):
    one, other = cells(0, n=2500).obsm["spatial"], cells(1, n=2500).obsm["spatial"]
    assert n_impossible(one * scale) == 0
    assert n_impossible(np.vstack([one, other]) * scale) > 25
    doubled = np.vstack([one, one[:300]])  # cells that were segmented twice
    assert n_impossible(doubled * scale) == 0
    assert n_impossible(np.vstack([one, one]) * scale) == 5000
    assert cKDTree(one).query(one, k=2)[0][:, 1].min() > 3.0
