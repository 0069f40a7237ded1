import numpy as np
import pytest

from spaf_data import InputError
from spaf_data.colocalization import GeneProximity
from spaf_data.gene_identity import GeneNames, check_same_genes, ensembl_id, join_genes, unclear_genes

IDS = [f"ENSG{number:011d}" for number in range(4)]


def names(where, genes, gene_ids=None):
    return GeneNames(where=where, names=genes, gene_ids=gene_ids)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ENSG00000119888", "ENSG00000119888"),
        ("ENSG00000119888.16", "ENSG00000119888"),
        ("ENSMUSG00000021950.2", "ENSMUSG00000021950"),
        (" ensg00000119888.16 ", "ENSG00000119888"),
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
        [names("b", [" A", "B ", "C"])],
        [names("b", [f" {one.lower()} " for one in IDS[:3]])],
        [names("b", ["mm10_A", "mm10_B", "mm10_C"])],
        [names("b", ["A", "B", "C"], ["A", "B", "C"])],  # symbols for ids are none
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
    with pytest.raises(
        InputError, match=f"slide x names 4 of its 4 genes by Ensembl id .*{IDS[0]}.* and slide y 2 of its 2 by symbol"
    ):
        join_genes([names("slide x", IDS), names("slide y", ["A", "B"])])


def test_numbers_that_a_float_gave_decimals_are_the_same_ids():
    joined = join_genes([names("a", ["A", "B"], ["1000", "1001"]), names("b", ["A", "B"], ["1000.0", " 1001.0"])])
    assert joined.gene_ids == ["1000", "1001"]
    assert joined.columns[1].tolist() == [0, 1]


MANY = [f"ENSG{number:011d}" for number in range(100, 140)]
SYMBOLS = [f"GENE{number}" for number in range(40)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (names("x", [*MANY[:39], SYMBOLS[39]]), names("y", SYMBOLS)),  # a row that is no id
        (names("x", MANY), names("y", SYMBOLS, [MANY[0], *[""] * 39])),  # a row that has one
        (names("x", MANY), names("y", SYMBOLS, [one if n % 3 == 0 else "" for n, one in enumerate(MANY)])),
        (names("x", MANY), names("y", SYMBOLS, SYMBOLS)),
    ],
)
def test_an_odd_row_makes_ids_and_symbols_no_more_comparable(one, other):
    for tables in ([one, other], [other, one]):
        with pytest.raises(
            InputError, match=r"x names \d+ of its 40 genes by Ensembl id alone .* y \d+ of its 40 by sym"
        ):
            join_genes(tables)
    bridge = names("z", SYMBOLS, MANY)
    assert len(join_genes([one, other, bridge]).genes) == 40


def test_a_few_genes_that_may_be_the_same_are_said():
    tables = [names("x", [*MANY[:6], *SYMBOLS[6:]]), names("y", SYMBOLS)]
    (sentence,) = unclear_genes(tables, join_genes(tables))
    assert sentence.startswith(f"x names 6 of its 40 genes by Ensembl id alone (such as {MANY[0]}, ")
    assert "and y 40 of its 40 by symbol alone (such as GENE" in sentence
    bridged = [*tables, names("z", SYMBOLS, MANY)]
    assert unclear_genes(bridged, join_genes(bridged)) == []


def other_genes(*tables, **allowed):
    return check_same_genes(tables, join_genes(tables), **allowed)


def test_tables_without_genes_in_common_are_asked_about():
    left = [names("slide a", [f"L{n}" for n in range(100)]), names("slide b", [f"L{n}" for n in range(50, 150)])]
    right = [names("slide c", [f"R{n}" for n in range(98)] + ["L1", "L2"]), names("slide d", ["R1", "R2"])]
    assert other_genes(*left) == []
    question = (
        r"slide a has genes such as L0, L1, L2 and slide c \(and 1 more\) such as R0, R1, R2, and they share less than "
        r"5% of them: .*--allow-other-genes"
    )
    with pytest.raises(InputError, match=question):
        other_genes(*left, *right)
    (sentence,) = other_genes(*left, *right, allow_other_genes=True)
    assert sentence.startswith("slide a has genes such as L0")
    bridge = names("slide e", [f"L{n}" for n in range(10)] + [f"R{n}" for n in range(10)])
    assert other_genes(*left, *right, bridge) == []


@pytest.mark.parametrize(("species", "refused"), [("Mouse", False), ("Human", True), ("unknown", True), ("", True)])
def test_another_species_has_other_genes(species, refused):
    human = GeneNames(where="slide h", names=SYMBOLS, species="Human")
    mouse = GeneNames(where="slide m", names=[name.capitalize() for name in SYMBOLS], species=species)
    if refused:
        with pytest.raises(InputError, match=r"slide h has genes .* slide m such as Gene0"):
            other_genes(human, mouse)
    else:
        assert len(other_genes(human, mouse)) == 1


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
