"""The commands of the analyses: a result by the ending of its file, JSON, and wrong input in one sentence."""

import json
import shutil
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spaf_analysis import benchmark_cell_pairs, cli, enriched_gene_pairs, spatially_variable_genes

FEW = ("--max-pairs", 50, "--replicates", 10)
COMMANDS = {
    "clusters": (("--resolution", 0.3), "cluster"),
    "spatial-genes": ((), "morans_i"),
    "cell-pairs": (FEW, "auroc"),
    "gene-pairs": (("--min-cells", 2), "fdr"),
    "niches": (("--n-domains", 4), "niche"),
    "type-pairs": (("--cell-type", "split"), "ratio"),
    "ligrec": (("--cell-type", "split", "--resource", "pairs.csv", "--min-cells", 1), "excess"),
}


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command line; return its exit code, what it printed and what it said."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["spaf-analysis", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_the_ending_says_what_is_written(stages, tmp_path, call, command):
    words, column = COMMANDS[command]
    if command == "ligrec":
        words = (*words[:3], pairs_of(stages, tmp_path / "pairs"), *words[4:])
    before = stages.embedded.read_bytes()
    for ending in ("csv", "parquet", "h5ad"):
        out = tmp_path / f"out.{ending}"
        code, printed, said = call(command, stages.embedded, *words, "-o", out)
        assert (code, printed) == (0, "")
        # What a panel measures of a resource is said before anything else is believed.
        assert said.startswith("The panel measures 3 of the 4 ") if command == "ligrec" else not said
    table, same = pd.read_csv(tmp_path / "out.csv"), pd.read_parquet(tmp_path / "out.parquet")
    assert column in table
    assert len(table) == len(same) > 0
    assert list(table) == list(same)
    adata = ad.read_h5ad(tmp_path / "out.h5ad")
    assert "X_SpaF" in adata.obsm
    added = {"clusters": adata.obs, "spatial-genes": adata.var, "cell-pairs": adata.uns, "gene-pairs": adata.uns}
    added |= {"niches": adata.obs, "type-pairs": adata.uns, "ligrec": adata.uns}
    keys = {"niches": "spaf_niche", "clusters": "spaf_cluster", "spatial-genes": "morans_i"}
    assert keys.get(command, command.replace("-", "_")) in added[command]
    assert stages.embedded.read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.csv", "out.h5ad", "out.parquet"]


def pairs_of(stages, folder):
    """Write pairs of the first genes of the slide as a resource, one of them not measured."""
    folder.mkdir()
    genes = ad.read_h5ad(stages.embedded).var_names
    table = pd.DataFrame({"ligand": [*genes[:3], "ELSEWHERE"], "receptor": genes[3:7]})
    table.to_csv(folder / "pairs.csv", index=False)
    return folder / "pairs.csv"


def test_ligands_and_receptors_of_cells_and_beside_other_results(stages, tmp_path, call):
    resource = pairs_of(stages, tmp_path / "pairs")
    other = pd.read_csv(resource).rename(columns={"ligand": "gene_a", "receptor": "gene_b"}).assign(called=True)
    other.to_csv(tmp_path / "perturb.csv", index=False)
    words = ("--cell-type", "split", "--resource", resource, "--beside", f"perturbation={tmp_path / 'perturb.csv'}")
    code, printed, said = call(
        "ligrec",
        stages.embedded,
        *words,
        "--scores",
        tmp_path / "cells.h5ad",
        "--types",
        tmp_path / "types.csv",
        "--json",
    )
    assert code == 0
    assert "of the 4 ligand-receptor pairs of pairs.csv" in said
    result = json.loads(printed)
    assert " ".join(said.split()).startswith(result["coverage"] + " Of 3 gene pairs that ligand-receptor and perturb")
    assert result["overlap"][0]["n_tested"] == len(result["table"]) == 3
    scores = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert scores.shape == (ad.read_h5ad(stages.embedded).n_obs, 3)
    types = pd.read_csv(tmp_path / "types.csv")
    totals = types.groupby(["ligand", "receptor"])["observed"].sum()
    for row in result["table"]:
        assert totals[row["ligand"], row["receptor"]] == pytest.approx(row["observed"], rel=1e-4)


def test_gene_pairs_that_mark_groups_and_cells_by_pairs(stages, tmp_path, call):
    words = ("--groupby", "split", "--min-cells", 20, "--cells", tmp_path / "cells.h5ad", "-o", tmp_path / "out.csv")
    code, printed, said = call("gene-pairs", stages.embedded, *words, "--json")
    assert code == 0
    assert "are markers by presence, of which" in said
    markers = json.loads(printed)["markers"]
    assert len(pd.read_csv(tmp_path / "out.csv")) == markers["n_tested"] == len(markers["table"])
    assert ad.read_h5ad(tmp_path / "cells.h5ad").n_obs == ad.read_h5ad(stages.embedded).n_obs


def test_gene_pairs_of_a_run_whose_transcripts_are_disturbed(stages, tmp_path, call):
    curves = tmp_path / "curves.csv"
    words = ("--transcripts", stages.bundle, "--robustness", curves, "-o", tmp_path / "pairs.csv")
    assert call("gene-pairs", stages.embedded, *words)[0] == 0
    table = pd.read_csv(curves)
    overall = table[table["scope"] == "slide"]
    assert {"jitter", "outer", "dropped", "panel"} <= set(overall["perturbation"])
    assert (overall.loc[overall["perturbation"] == "jitter", "counts"] == 1.0).all()


def test_clusters_in_json_and_in_a_table(stages, tmp_path, call):
    out = tmp_path / "out.csv"
    code, printed, said = call("clusters", stages.embedded, "--key-added", "mine", "-o", out, "--json")
    assert (code, said) == (0, "")
    result, table = json.loads(printed), pd.read_csv(out)
    assert table["cell"].tolist() == ad.read_h5ad(stages.embedded).obs_names.tolist()
    sizes = table["cluster"].value_counts().to_dict()
    assert {int(row["cluster"]): row["n_cells"] for row in result["clusters"]} == sizes
    assert all(isinstance(gene, str) for row in result["clusters"] for gene in row["genes"])


def test_genes_and_pairs_in_json(stages, call):
    adata = ad.read_h5ad(stages.embedded)
    ranked = spatially_variable_genes(adata)
    genes = json.loads(call("spatial-genes", stages.embedded, "--json")[1])
    assert [row["gene"] for row in genes["genes"]] == ranked.index.tolist()
    np.testing.assert_allclose([row["morans_i"] for row in genes["genes"]], ranked)
    pairs = json.loads(call("gene-pairs", stages.embedded, "--json")[1])
    expected = enriched_gene_pairs(adata)
    assert pairs["n_tested"] == expected.n_tested
    assert len(pairs["enriched"]) == len(expected.enriched(10**6))


def test_cell_pairs_of_a_model_or_of_an_embedding_alone(stages, call):
    adata = ad.read_h5ad(stages.embedded)
    code, printed, _ = call("cell-pairs", stages.embedded, "--model", stages.model, *FEW, "--json")
    result = json.loads(printed)
    expected = benchmark_cell_pairs(adata, stages.model, max_pairs=50, n_replicates=10).evaluation.scores
    assert code == 0
    assert [row["auroc"] for row in result["scores"]] == pytest.approx(expected["auroc"].tolist())
    assert {row["baseline"] for row in result["differences"]} >= {"PCA pair network", "Pearson residual PCA cosine"}
    assert result["distances"]["positive"] == 30.0
    alone = json.loads(call("cell-pairs", stages.embedded, *FEW, "--radius", 20, "--json")[1])
    assert "model" not in {row["score"] for row in alone["scores"]}
    assert {row["radius"] for row in alone["scores"]} == {20.0}
    beside = json.loads(call("cell-pairs", stages.embedded, *FEW, "--cell-type", "split", "--json")[1])
    assert beside["type_pairs"]["types"] == ["gap", "train", "validation"]
    assert beside["scores"] == json.loads(call("cell-pairs", stages.embedded, *FEW, "--json")[1])["scores"]
    words = ("--cell-type", "split", "--positive-radius", 20)
    at_radius = json.loads(call("cell-pairs", stages.embedded, *FEW, *words, "--json")[1])
    assert at_radius["type_pairs"]["parameters"]["radius"] == at_radius["parameters"]["distances"]["positive"] == 20.0


def test_a_graph_says_how_far_neighbours_are_apart(stages, tmp_path, call):
    adata = ad.read_h5ad(stages.embedded)
    adata.uns["spatial_neighbors"]["params"]["radius"] = 25.0
    adata.write_h5ad(tmp_path / "near.h5ad")
    for words, radius in (((), 25.0), (("--positive-radius", 20), 20.0)):
        result = json.loads(call("cell-pairs", tmp_path / "near.h5ad", *FEW, *words, "--json")[1])
        assert result["distances"]["positive"] == radius
        assert radius in {row["radius"] for row in result["scores"]}


def test_cells_are_embedded_where_there_is_no_embedding(stages, tmp_path, call):
    adata = ad.read_h5ad(stages.embedded)
    expected = adata.obsm.pop("X_SpaF")
    adata.write_h5ad(tmp_path / "bare.h5ad")
    out = tmp_path / "out.h5ad"
    assert call("clusters", tmp_path / "bare.h5ad", "-m", stages.model, "-o", out)[0] == 0
    np.testing.assert_allclose(ad.read_h5ad(out).obsm["X_SpaF"], expected, atol=1e-5)


def test_other_cells_to_fit_on(stages, tmp_path, call):
    other = ad.read_h5ad(stages.embedded)
    other.obs_names = "other-" + other.obs_names  # as other cells: a copy of those that are judged is refused
    other.write_h5ad(tmp_path / "other.h5ad")
    result = json.loads(call("cell-pairs", stages.embedded, "--train", tmp_path / "other.h5ad", *FEW, "--json")[1])
    assert result["n_validation"] == result["n_train"] == ad.read_h5ad(stages.embedded).n_obs


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "the result goes nowhere: name a file with -o (.h5ad, .csv, .parquet) or give --json"),
        (("-o", "out.txt"), "out.txt says by its ending no format that is known; choose .h5ad, .csv or .parquet"),
        (("-o", "none/out.csv"), "the folder none does not exist"),
        (("-o", "embedded.h5ad"), "would overwrite the input embedded.h5ad"),
    ],
)
def test_wrong_places_are_one_sentence_before_the_work(stages, tmp_path, monkeypatch, call, command, words, sentence):
    monkeypatch.chdir(tmp_path)
    shutil.copy(stages.embedded, tmp_path / "embedded.h5ad")
    monkeypatch.setattr(ad, "read_h5ad", None)
    asked = COMMANDS[command][0] if command in ("type-pairs", "ligrec") else ()  # what must be given
    code, printed, said = call(command, "embedded.h5ad", *asked, *words)
    assert (code, printed) == (2, "")
    assert sentence in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["embedded.h5ad"]


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("clusters", "none.h5ad"), "there is no file none.h5ad"),
        (("clusters", "text.h5ad"), "text.h5ad cannot be read as an h5ad file"),
        (("clusters", "embedded.h5ad", "--key", "X_none"), "obsm has no embedding 'X_none'; it has: "),
        (("clusters", "embedded.h5ad", "--resolution", "-1"), "resolution must be above 0, not -1"),
        (("niches", "embedded.h5ad", "--key", "X_none"), "obsm has no embedding 'X_none'; it has: "),
        (("niches", "embedded.h5ad", "--label", "none"), "obs has no column 'none' (--label); it has: "),
        (("niches", "embedded.h5ad", "--label", "slide"), "obs column 'slide' (--label) holds only 'sim'"),
        (("niches", "embedded.h5ad", "--condition", "slide"), "give both --condition and --donor"),
        (("niches", "embedded.h5ad", "--inputs", "all"), "inputs must be one of both, embedding, expression"),
        (("niches", "embedded.h5ad", "--radius", "1"), "radius 1 reaches no other cell for most cells"),
        (("niches", "twice.h5ad"), "3 cells have the name of another one, the first is 'a'"),
        (("type-pairs", "embedded.h5ad", "--cell-type", "none"), "obs has no column 'none' (cell_type); it has: "),
        (("cell-pairs", "embedded.h5ad", "--cell-type", "none"), "obs has no column 'none' (--cell-type); it has: "),
        (("cell-pairs", "embedded.h5ad", "--key", "X_none"), "obsm has no embedding 'X_none'; it has: "),
        (("cell-pairs", "embedded.h5ad", "--radius", "90"), "90 um"),
        (("cell-pairs", "embedded.h5ad", "--model", "beginner"), "beginner"),
    ],
)
def test_wrong_input_is_one_sentence(stages, tmp_path, monkeypatch, call, words, sentence):
    monkeypatch.chdir(tmp_path)
    shutil.copy(stages.embedded, tmp_path / "embedded.h5ad")
    (tmp_path / "text.h5ad").write_text("words")
    if "twice.h5ad" in words:
        adata = ad.read_h5ad(stages.embedded)
        adata.obs_names = ["a"] * 4 + adata.obs_names[4:].tolist()
        adata.write_h5ad(tmp_path / "twice.h5ad")
    code, printed, said = call(*words, "-o", "out.csv", "--json")
    assert (code, printed) == (2, "")
    assert sentence in said
    assert said.startswith("spaf-analysis: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def test_pairs_that_cannot_be_judged_give_no_table_but_a_reason(stages, tmp_path, call):
    adata = ad.read_h5ad(stages.embedded)
    adata.obs["split"] = "train"
    adata.write_h5ad(tmp_path / "train.h5ad")
    code, _, said = call("cell-pairs", tmp_path / "train.h5ad", "-o", tmp_path / "out.csv")
    assert code == 2
    assert "cell pairs were not judged, since only 0 cells were held out for validation" in said
    result = json.loads(call("cell-pairs", tmp_path / "train.h5ad", "--json")[1])
    assert result["reason"] == "only 0 cells were held out for validation"
    assert result["separation"] is None


@pytest.mark.parametrize("command", ["spatial-genes", "cell-pairs", "niches"])
def test_logarithms_are_no_counts(stages, tmp_path, call, command):
    adata = ad.read_h5ad(stages.embedded)
    adata.X = adata.X.astype(np.float32).log1p()
    adata.write_h5ad(tmp_path / "logs.h5ad")
    code, _, said = call(command, tmp_path / "logs.h5ad", *COMMANDS[command][0], "-o", tmp_path / "out.csv")
    assert code == 2
    assert "look log-normalised" in said
    assert not (tmp_path / "out.csv").exists()


def test_cells_are_not_judged_by_themselves(stages, tmp_path, call):
    words = ["cell-pairs", stages.embedded, "--train", stages.embedded, *FEW, "-o", tmp_path / "out.csv"]
    code, _, said = call(*words)
    assert code == 2
    assert "holds the cells that are judged" in said


def test_niches_are_judged_and_compared_in_json(stages, tmp_path, call):
    adata = ad.read_h5ad(stages.embedded)
    x = adata.obsm["spatial"][:, 0]
    strip = np.minimum(4 * (x - x.min()) // np.ptp(x), 3).astype(int)
    adata.obs["region"] = np.where(strip > 1, "right", "left")
    adata.obs["donor"] = [f"d{one}" for one in strip]
    adata.obs["condition"] = np.where(strip % 2 == 1, "odd", "even")
    adata.write_h5ad(tmp_path / "in.h5ad")
    words = ("--label", "region", "--condition", "condition", "--donor", "donor", "--cell-type", "region")
    code, printed, said = call("niches", tmp_path / "in.h5ad", "-k", 3, *words, "--replicates", 20, "--json")
    assert (code, said) == (0, "")
    result = json.loads(printed)
    assert result["n_domains"] == len(result["niches"]) == 3
    assert {row["method"] for row in result["judged"]} >= {"niches, both", "PCA averaged twice"}
    assert {row["kind"] for row in result["differences"]["table"]} == {"abundance", "composition", "gene"}
    assert result["differences"]["smallest_p"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        ("cell-pairs", ("--cell-type", "kind", "-o", "x.csv"), "x.csv is one table, in which the cell types around"),
        ("cell-pairs", ("--donor", "donor", "--json"), "give --cell-type too"),
        ("niches", ("--condition", "a", "--donor", "b", "-o", "x.csv"), "in which the differences between conditions"),
        ("niches", ("--label", "a", "-o", "x.parquet"), "in which how niches were judged"),
        ("niches", ("--cell-type", "kind", "--json"), "--cell-type is for comparing conditions"),
        ("niches", ("--contrast", "a", "b", "--json"), "--contrast is for comparing conditions"),
        ("type-pairs", ("--cell-type", "kind", "--contrast", "a", "b", "--json"), "--contrast is for comparing"),
        ("gene-pairs", ("--cells", "cells.csv", "--json"), "its name must end in .h5ad"),
        ("gene-pairs", ("--robustness", "curves.csv", "--json"), "needs the run that the slide is of (--transcripts)"),
        ("gene-pairs", ("--transcripts", "run", "--robustness", "c.h5ad", "--json"), "must end in .csv or .parquet"),
        ("ligrec", ("--contrast", "a", "b", "--json"), "--contrast is for comparing"),
        ("ligrec", ("--beside", "a=b.csv", "-o", "x.csv"), "in which the overlap with other results"),
        ("ligrec", ("--types", "t.csv", "--json"), "name their column too (--cell-type)"),
        ("ligrec", ("--types", "t.h5ad", "--json"), "its name must end in .csv or .parquet"),
        ("ligrec", ("--beside", "b.csv", "--json"), "--beside takes NAME=TABLE"),
        ("ligrec", ("--beside", "a=b.csv", "--json"), "there is no file b.csv (--beside)"),
        ("ligrec", ("--resource", "none.csv", "--json"), "there is no file none.csv"),
        ("ligrec", ("--scores", "cells.csv", "--json"), "its name must end in .h5ad"),
    ],
)
def test_no_result_is_lost_and_no_option_ignored(stages, tmp_path, call, monkeypatch, command, words, sentence):
    monkeypatch.chdir(tmp_path)
    code, printed, said = call(command, stages.embedded, *words)
    assert (code, printed) == (2, "")
    assert sentence in " ".join(said.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("annotate", ("--label", "split", "--reference")),
        ("deconvolve", ("--label", "split", "--reference")),
        ("impute", ("--reference",)),
        ("cell-pairs", ("--train",)),
        ("perturb", ("--pairs",)),
        ("attention", ("--model", "run/model", "--pairs")),
        ("ligrec", ("--resource",)),
        ("ligrec", ("--beside", "mine=other.csv", "--resource")),
    ],
)
def test_no_file_that_is_read_is_written_over(stages, tmp_path, call, monkeypatch, command, words):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.csv"
    other.write_text("left,right,near\n")
    code, printed, said = call(command, stages.embedded, *words, "other.csv", "-o", "other.csv")
    assert (code, printed) == (2, "")
    assert "would overwrite the input other.csv" in said
    assert other.read_text() == "left,right,near\n"
