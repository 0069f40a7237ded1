import numpy as np
import pandas as pd
import pytest

from spaf_data import InputError, Transcripts, bin_transcripts, colocalize
from spaf_data.colocalization import robustness

PLACES = {"dropped": (), "panel": ()}  # noise in places alone


def test_no_noise_keeps_everything_and_more_noise_keeps_less(slide: Transcripts) -> None:
    found = robustness(slide, jitter=(0.0, 0.5, 4.0), kept_fraction=(0.9, 0.5), seed=1, **PLACES)
    overall = found[found.scope == "slide"].set_index(["perturbation", "level"])
    assert list(overall.index) == [("jitter", 0.0), ("jitter", 0.5), ("jitter", 4.0), ("outer", 0.9), ("outer", 0.5)]
    assert overall.loc[("jitter", 0.0), ["recall", "precision", "jaccard"]].tolist() == [1.0, 1.0, 1.0]
    assert 1 > overall.jaccard["jitter", 0.5] > overall.jaccard["jitter", 4.0]
    assert overall.recall["outer", 0.9] > overall.recall["outer", 0.5]
    assert overall.n_perturbed["outer", 0.9] > overall.n_perturbed["outer", 0.5]


def test_cells_add_up_to_the_slide(slide: Transcripts) -> None:
    found = robustness(slide, jitter=(1.0,), kept_fraction=(), **PLACES)
    of_cells = found[found.scope == "cell"]
    assert of_cells.cell.tolist() == slide.cells.tolist()
    counts = ["n_reference", "n_perturbed", "n_shared"]
    overall = found[found.scope == "slide"].iloc[0]
    assert of_cells[counts].sum().tolist() == overall[counts].tolist()
    union = of_cells.n_reference + of_cells.n_perturbed - of_cells.n_shared
    filled = of_cells[union > 0]
    assert np.allclose(filled.jaccard, filled.n_shared / union[union > 0])
    assert overall.recall == pytest.approx(overall.n_shared / overall.n_reference)
    assert overall.precision == pytest.approx(overall.n_shared / overall.n_perturbed)


def test_seed_and_threads(slide: Transcripts) -> None:
    first = robustness(slide, jitter=(1.0,), kept_fraction=(), seed=4, n_threads=1, **PLACES)
    pd.testing.assert_frame_equal(
        first, robustness(slide, jitter=(1.0,), kept_fraction=(), seed=4, n_threads=3, **PLACES)
    )
    other = robustness(slide, jitter=(1.0,), kept_fraction=(), seed=5, **PLACES)
    assert not first.equals(other)


def test_nucleus(transcripts: Transcripts) -> None:
    found = robustness(transcripts, jitter=(), kept_fraction=(), **PLACES)
    assert found.perturbation.unique().tolist() == ["nucleus"]
    assert found.level.isna().all()
    overall = found.iloc[0]
    assert 0 < overall.n_perturbed < overall.n_reference


def test_enrichment_compares_the_pairs_called_in_the_slide(transcripts: Transcripts) -> None:
    options = {"method": "enrichment", "jitter": (0.0, 0.5, 8.0), "kept_fraction": (0.9,), "nucleus": False, **PLACES}
    found = robustness(transcripts, **options)
    assert found.scope.unique().tolist() == ["slide"]
    assert found.cell.isna().all()
    same, little, much, _ = found.itertuples()
    called = transcript_pairs_below(transcripts, 0.05)
    assert same.n_reference == same.n_perturbed == same.n_shared == len(called) >= 5  # as many are planted
    assert same.jaccard == 1.0
    assert little.recall == 1.0  # spots are 1 um wide
    assert much.n_perturbed == 0
    assert much.recall == 0.0
    assert np.isnan(much.precision)
    strict = 1e-12
    n_strict = len(transcript_pairs_below(transcripts, strict))
    assert robustness(transcripts, **options, fdr=strict).n_reference[0] == n_strict


def transcript_pairs_below(transcripts: Transcripts, fdr: float) -> pd.DataFrame:
    slide = bin_transcripts(transcripts, min_transcripts=1)
    colocalize(slide, transcripts, method="enrichment", cell_scores=False)
    statistics = slide.uns["colocalization"]["statistics"]
    return statistics[statistics.fdr < fdr]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"jitter": (-1.0,)}, "jitter"),
        ({"kept_fraction": (1.0,)}, "kept_fraction"),
        ({"dropped": (1.0,)}, "dropped"),
        ({"panel": (0.0,)}, "panel"),
        ({"fdr": 0.0}, "fdr is 0"),
        ({"method": "correlation"}, "the choices are communities, enrichment"),
    ],
)
def test_bad_levels(slide: Transcripts, options: dict, name: str) -> None:
    with pytest.raises(InputError, match=name):
        robustness(slide, **options)


@pytest.mark.parametrize("method", ["communities", "enrichment"])
def test_nothing_lost_is_exactly_one_beside_counts(transcripts: Transcripts, method: str) -> None:
    found = robustness(
        transcripts, method=method, jitter=(0.0,), kept_fraction=(), dropped=(0.0,), panel=(1.0,), nucleus=False
    )
    overall = found[found.scope == "slide"]
    assert overall.perturbation.tolist() == ["jitter", "dropped", "panel"]
    assert (overall[["recall", "precision", "jaccard", "counts"]] == 1.0).all(axis=None)


def test_pairs_and_counts_of_lost_transcripts_and_genes(slide: Transcripts) -> None:
    found = robustness(slide, jitter=(4.0,), kept_fraction=(), dropped=(0.1, 0.5), panel=(0.5,), seed=2)
    overall = found[found.scope == "slide"].set_index(["perturbation", "level"])
    assert overall.counts["jitter", 4.0] == 1.0 > overall.jaccard["jitter", 4.0]
    assert 1 > overall.counts["dropped", 0.1] > overall.counts["dropped", 0.5]
    assert overall.jaccard["dropped", 0.1] > overall.jaccard["dropped", 0.5]
    assert overall.counts["panel", 0.5] == 1.0, "genes that stay have the counts that they had"
    assert overall.n_reference["panel", 0.5] < overall.n_reference["dropped", 0.1], "pairs of other genes are not lost"
    lost = np.random.default_rng(2).random(slide.n_transcripts) < 0.5
    dense = np.zeros((2, slide.n_cells, slide.n_genes))
    np.add.at(dense[0], (slide.cell, slide.gene), 1)
    np.add.at(dense[1], (slide.cell[~lost], slide.gene[~lost]), 1)
    has = dense[0].sum(axis=1) > 0
    norm = np.linalg.norm(dense[0], axis=1) * np.linalg.norm(dense[1], axis=1)
    cosine = (dense[0] * dense[1]).sum(axis=1) / np.where(norm > 0, norm, 1.0)
    assert overall.counts["dropped", 0.5] == pytest.approx(cosine[has].mean())
