"""Other names of genes: what a table gives, and what is said of mouse."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from spaf_model import InputError, SpatialFormer, Vocabulary, match_genes
from spaf_model.gene_names import read_gene_names

Run = Callable[..., int]
HUMAN = ["EPCAM", "CD4", "ACTA2", "PECAM1"]


@pytest.fixture
def human() -> Vocabulary:
    return Vocabulary.of_genes(HUMAN, [f"ENSG{position:011d}" for position in range(4)])


def tokens(names: list[str], vocabulary: Vocabulary, given: object, **columns: list[str]) -> list[int]:
    var = pd.DataFrame(columns, index=names)
    return match_genes(var, vocabulary, min_fraction=0.5, gene_names=given).token_ids.tolist()  # type: ignore[arg-type]


def test_own_names_go_before_others(human: Vocabulary) -> None:
    given = {"TACSTD1": "EPCAM", "CD4": "ACTA2"}
    assert tokens(["TACSTD1", "CD4", "OTHER"], human, given) == [0, 1, -1]


def test_orthologs_and_two_names_of_one_gene(human: Vocabulary) -> None:
    given = pd.DataFrame(
        {"name": ["Epcam", "Cd4", "Cd4b", "ENSMUSG00000000003"], "gene": ["EPCAM", "CD4", "CD4", "ACTA2"]}
    )
    names = ["Epcam", "Cd4", "Cd4b", "ENSMUSG00000000003"]
    assert tokens(names, human, given) == [0, 1, 1, 2]
    by_id = tokens(["a", "b", "c"], human, given, gene_ids=["ENSMUSG00000000003", "ENSG00000000003", "x"])
    assert by_id == [2, 3, -1]


def test_mouse_without_a_table_is_a_sentence(human: Vocabulary) -> None:
    sentence = "Only 0 of 3 genes .*; these look like genes of mouse: give their human orthologs in a table"
    with pytest.raises(InputError, match=sentence):
        tokens(["Epcam", "Cd4", "Acta2"], human, None)
    with pytest.raises(InputError, match=sentence):
        tokens(["a", "b", "c"], human, None, gene_ids=["ENSMUSG00000000003"] * 3)
    with pytest.raises(InputError, match=r"like EPCAM, CD4, ACTA2\.$"):
        tokens(["Other", "Gene", "Names"], human, None)


def test_a_name_in_the_input_twice_is_no_alias(human: Vocabulary) -> None:
    with pytest.raises(InputError, match="Gene 'CD4' occurs more than once"):
        tokens(["CD4", "CD4", "EPCAM"], human, {"CD4": "ACTA2"})


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no column 'gene'; it has: name, symbol"):
        read_gene_names(pd.DataFrame({"name": ["a"], "symbol": ["b"]}))
    file = tmp_path / "names.csv"
    file.write_text("name,gene\na,B\na,C\n")
    with pytest.raises(InputError, match="gives 'a' more than one gene"):
        read_gene_names(file)
    file.write_text("name,gene\na,B\na,B\nc,\n")
    assert read_gene_names(str(file)) == {"a": "B"}
    with pytest.raises(FileNotFoundError):
        read_gene_names(tmp_path / "none.csv")


def test_counts_of_other_names_are_embedded_alike(
    model: SpatialFormer, adata: anndata.AnnData, run: Run, directory: Path, tmp_path: Path
) -> None:
    model.embed(adata)
    renamed = adata.copy()
    renamed.var_names = [name.title() for name in adata.var_names]
    table = tmp_path / "names.tsv"
    pairs = zip(renamed.var_names, adata.var_names, strict=True)
    table.write_text("name\tgene\n" + "".join(f"{name}\t{gene}\n" for name, gene in pairs))
    model.embed(renamed, gene_names=table)
    np.testing.assert_array_equal(renamed.obsm["X_SpaF"], adata.obsm["X_SpaF"])
    assert renamed.uns["spaf"]["embed"]["parameters"]["gene_names"] == str(table)
    model.embed(renamed, gene_names=dict(zip(renamed.var_names, adata.var_names, strict=True)))
    assert renamed.uns["spaf"]["embed"]["parameters"]["gene_names"] == "a table of 40"
    renamed.write_h5ad(tmp_path / "renamed.h5ad")
    command = ("embed", tmp_path / "renamed.h5ad", "-m", directory, "-o", tmp_path / "out.h5ad")
    assert run(*command) == 2
    assert run(*command, "--gene-names", table) == 0
    np.testing.assert_allclose(anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_SpaF"], adata.obsm["X_SpaF"], atol=1e-5)
