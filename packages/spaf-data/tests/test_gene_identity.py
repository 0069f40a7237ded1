import numpy as np
import pytest

from spaf_data import InputError
from spaf_data.colocalization import GeneProximity
from spaf_data.gene_identity import GeneNames, ensembl_id, join_genes

IDS = [f"ENSG{number:011d}" for number in range(4)]


def names(where, genes, gene_ids=None):
    return GeneNames(where=where, names=genes, gene_ids=gene_ids)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ENSG00000119888", "ENSG00000119888"),
        ("ENSG00000119888.16", "ENSG00000119888"),
        ("ENSMUSG00000021950.2", "ENSMUSG00000021950"),
        ("ENSG00000119888.x", ""),
        ("ENSA", ""),  # a gene of this name
        ("EPCAM", ""),
        ("NA", ""),
        ("", ""),
    ],
)
def test_ensembl_ids_are_known_by_their_form(name, expected):
    assert ensembl_id(name) == expected


@pytest.mark.parametrize(
    "others",
    [
        [names("b", ["A", "B", "C"])],  # symbols
        [names("b", IDS[:3])],  # ids as names
        [names("b", [f"{one}.7" for one in IDS[:3]])],  # with version
        [names("b", ["old A", "old B", "old C"], [f"{one}.1" for one in IDS[:3]])],  # aliases
        [names("b", ["A", "B", "C"], [f"{one}.1" for one in IDS[:3]])],
        [names("b", IDS[:3]), names("c", ["A", "B", "C"])],  # joined by the first alone
        [names("b", ["A", "B", "C"], ["7157", "7158", "7159"])],  # ids of another kind
    ],
)
def test_one_gene_has_one_place_under_all_its_names(others):
    first = names("a", ["A", "B", "C"], IDS[:3])
    for tables in ([first, *others], [*others, first]):
        joined = join_genes(tables)
        assert sorted(joined.gene_ids) == IDS[:3]
        assert all(columns.tolist() == [0, 1, 2] for columns in joined.columns)
        assert not any(ensembl_id(gene) for gene in joined.genes)


def test_two_symbols_of_one_id_in_one_table_are_one_gene():
    joined = join_genes([names("a", ["A", "also A", "B"], [IDS[0], f"{IDS[0]}.2", IDS[1]])])
    assert joined.genes == ["A", "B"]
    assert joined.columns[0].tolist() == [0, 0, 1]


def test_genes_without_a_symbol_go_by_their_id_and_others_by_what_they_have():
    joined = join_genes([names("a", [f"{IDS[0]}.3", "NA", "B"], ["", "", IDS[1]])])
    assert joined.genes == [IDS[0], "NA", "B"]
    assert joined.gene_ids == [IDS[0], "", IDS[1]]
    assert join_genes([names("a", ["A", "B"])]).gene_ids is None


@pytest.mark.parametrize("kind", [IDS, ["7157", "7158"]])
def test_two_ids_of_one_symbol_are_refused_with_both_tables(kind):
    tables = [names("slide x", ["A"], [kind[0]]), names("slide y", ["B"], [""]), names("slide z", ["A"], [kind[1]])]
    with pytest.raises(InputError, match=f"gene 'A': it has the id {kind[0]} in slide x and {kind[1]} in slide z"):
        join_genes(tables)


def test_ids_alone_and_symbols_alone_cannot_be_compared():
    with pytest.raises(InputError, match=f"slide x names its genes by Ensembl id .*{IDS[0]}.* and slide y by symbol"):
        join_genes([names("slide x", IDS), names("slide y", ["A", "B"])])


def proximity(genes, gene_ids, observed):
    observed = np.array(observed)
    return GeneProximity(
        genes=genes, gene_ids=gene_ids, n_transcripts=np.full(len(genes), 10), n_cells=2, observed=observed,
        expected=observed / 2, radius=3.0, across_cells=False,
    )  # fmt: skip


def test_proximal_pairs_of_two_names_of_one_gene_are_counted_once():
    one = proximity(["A", "A too", "B"], [IDS[0], IDS[0], IDS[1]], [[5, 3, 2], [3, 1, 4], [2, 4, 7]])
    other = proximity([f"{IDS[1]}.2", "C"], None, [[1, 6], [6, 2]])
    total = GeneProximity.total([one, other])
    assert total.genes == ["A", "B", "C"]
    assert total.gene_ids == [IDS[0], IDS[1], ""]
    assert total.observed.tolist() == [[9, 6, 0], [6, 8, 6], [0, 6, 2]]
    assert total.n_pairs == one.n_pairs + other.n_pairs
    np.testing.assert_allclose(total.expected, total.observed / 2)
    assert total.n_transcripts.tolist() == [20, 20, 10]
