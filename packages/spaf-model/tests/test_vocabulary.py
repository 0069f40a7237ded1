import json
from pathlib import Path

import numpy as np
import pytest

from spaf_model import InputError, Vocabulary


def test_build_lays_out_special_context_genes(vocabulary: Vocabulary, genes: list[str]) -> None:
    assert [vocabulary.pad, vocabulary.cls, vocabulary.mask, vocabulary.sep] == [0, 1, 2, 3]
    assert [vocabulary.tokens[token] for token in vocabulary.gene_token_ids] == genes
    assert vocabulary.tokens[vocabulary.context_id("tissue", "Lung")] == "tissue:Lung"
    assert len({vocabulary.context_id(kind, "unknown") for kind in ("condition", "tissue", "species", "assay")}) == 4
    assert vocabulary.n_tokens == 4 + (2 + 3 + 2 + 2) + len(genes)


def test_scale_is_one_outside_genes(vocabulary: Vocabulary) -> None:
    assert vocabulary.scale.dtype == np.float32
    others = np.setdiff1d(np.arange(vocabulary.n_tokens), vocabulary.gene_token_ids)
    assert (vocabulary.scale[others] == 1).all()
    np.testing.assert_allclose(vocabulary.scale[vocabulary.gene_token_ids], np.linspace(0.5, 3.0, 40), rtol=1e-6)


def test_order_of_context_names_does_not_matter() -> None:
    first = Vocabulary.build(["A"], scale=[1.0], tissue=["Lung", "Breast"])
    second = Vocabulary.build(["A"], scale=[1.0], tissue=["Breast", "Lung", "unknown"])
    assert first == second


def test_context_ignores_case_where_unambiguous(vocabulary: Vocabulary) -> None:
    assert vocabulary.context_id("tissue", "breast") == vocabulary.context_id("tissue", "Breast")
    twins = Vocabulary.build(["A"], scale=[1.0], tissue=["Skin", "SKIN"])
    assert twins.context_id("tissue", "SKIN") != twins.context_id("tissue", "Skin")
    with pytest.raises(InputError, match="no tissue 'skin'"):
        twins.context_id("tissue", "skin")


def test_unknown_context_lists_the_known(vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match="no tissue 'Kidney'; it knows: unknown, Breast, Lung"):
        vocabulary.context_id("tissue", "Kidney")
    with pytest.raises(InputError, match="kind of context 'organ'"):
        vocabulary.context_id("organ", "Kidney")


def test_imported_ids_are_kept_with_sep_among_the_genes() -> None:
    vocabulary = Vocabulary(
        ["PAD", "CLS", "MASK", "Human", "Lung", "Healthy", "Xenium", "G1", "SEP", "G2"],
        special={"pad": 0, "cls": 1, "mask": 2, "sep": 8},
        context={"species": {"Human": 3}, "tissue": {"Lung": 4}, "condition": {"Healthy": 5}, "assay": {"Xenium": 6}},
        scale=np.ones(10),
    )
    assert vocabulary.gene_token_ids.tolist() == [7, 9]
    assert vocabulary.match(["G2", "SEP", "Lung"], min_fraction=0.0).token_ids.tolist() == [9, -1, -1]
    with pytest.raises(InputError, match="no tissue 'unknown'"):
        vocabulary.context_id("tissue", "unknown")


def test_match_reports_matched_unmatched_and_duplicated(vocabulary: Vocabulary) -> None:
    match = vocabulary.match(["GENE3", "OTHER", "GENE0", "GENE3"])
    first = vocabulary.gene_token_ids[0]
    assert match.token_ids.tolist() == [first + 3, -1, first, -1]
    assert (match.matched, match.unmatched, match.duplicated) == (["GENE3", "GENE0"], ["OTHER"], ["GENE3"])
    assert match.fraction == 0.5


def test_match_by_ensembl_id_without_version(vocabulary: Vocabulary) -> None:
    first = vocabulary.gene_token_ids[0]
    by_column = vocabulary.match(["new name", "GENE9"], ["ENSG00000000002.7", "ENSG99999999999"])
    assert by_column.token_ids.tolist() == [first + 2, -1], "both sides have an id for GENE9, and they differ"
    assert vocabulary.look_up(["GENE9"], [""]).token_ids.tolist() == [first + 9]
    by_name = vocabulary.match(["ENSG00000000004.1"])
    assert by_name.token_ids.tolist() == [first + 4]


def test_one_gene_under_two_symbols_and_one_symbol_of_two_genes(vocabulary: Vocabulary) -> None:
    first = vocabulary.gene_token_ids[0]
    match = vocabulary.look_up(
        ["OLD2", "GENE2", "GENE3", "GENE3"], ["ENSG00000000002.1", "ENSG00000000002.4", "", "ENSG9"]
    )
    assert match.token_ids.tolist() == [first + 2, first + 2, first + 3, first + 3]
    assert (match.matched, match.joined, match.duplicated) == (["OLD2", "GENE3"], ["GENE2", "GENE3"], [])
    other = vocabulary.look_up(["GENE5", "GENE5"], ["ENSG00000000005", "ENSG00000777777"])
    assert other.token_ids.tolist() == [first + 5, -1], "a valid table of 10x: one symbol, two genes"
    assert other.duplicated == []


def test_a_model_that_reads_little_of_a_panel_refuses_it(vocabulary: Vocabulary, genes: list[str]) -> None:
    panel = [*genes[:20], *(f"X{position}" for position in range(293))]
    with pytest.raises(
        InputError, match=r"Only 20 of 313 genes are among the model's 40 genes \(at least 50% of those"
    ):
        vocabulary.match(panel)
    assert len(vocabulary.match(panel, min_fraction=0.05).matched) == 20
    assert vocabulary.match(genes[:5]).model_fraction == 5 / 40, "a small panel of which the model knows all"
    for fraction in (5, -0.1, float("nan")):
        with pytest.raises(InputError, match="min_gene_fraction is a share from 0 to 1, not"):
            vocabulary.match(panel, min_fraction=fraction)


def test_match_fails_below_both_fractions(vocabulary: Vocabulary, genes: list[str]) -> None:
    with pytest.raises(InputError, match=r"Only 1 of 4 genes.*like X, Y, Z.*like GENE0, GENE1, GENE2"):
        vocabulary.match(["X", "Y", "Z", "GENE1"])
    # A whole transcriptome holds the vocabulary, so the share of its own genes that match is small and fine.
    assert len(vocabulary.match([*genes, *(f"X{position}" for position in range(1000))]).matched) == len(genes)


def test_save_and_load(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = Vocabulary.load(tmp_path / "vocabulary.json")
    assert loaded == vocabulary
    assert loaded.scale.tobytes() == vocabulary.scale.tobytes()
    assert [file.name for file in tmp_path.iterdir()] == ["vocabulary.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"format_version": "1"}, "no format_version"),
        ({"tokens": ["A"]}, "outside the 1 tokens"),
        ({"scale": [1.0]}, "one value per token"),
        ({"scale": "abc"}, "not a vocabulary"),
        ({"special": None}, "not a vocabulary"),
    ],
)
def test_damaged_file_is_one_sentence(
    vocabulary: Vocabulary, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "vocabulary.json"
    vocabulary.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as error:
        Vocabulary.load(path)
    assert "vocabulary.json" in str(error.value)


def test_file_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        Vocabulary.load(tmp_path / "v.json")
    (tmp_path / "v.json").write_text("[]")
    with pytest.raises(InputError, match="JSON object"):
        Vocabulary.load(tmp_path / "v.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"genes": ["A", "A"], "scale": [1, 1]}, "'A' occurs more than once"),
        ({"genes": ["A"], "scale": [0.0]}, "'A' has 0.0"),
        ({"genes": ["A"], "scale": [np.nan]}, "above 0"),
        ({"genes": ["A"], "scale": [1, 1]}, "one value per gene"),
        ({"genes": [], "scale": []}, "at least one gene"),
        ({"genes": ["A"], "scale": [1], "gene_ids": []}, "gene_ids"),
    ],
)
def test_build_refuses(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Vocabulary.build(**arguments)  # type: ignore[arg-type]


def test_one_id_one_meaning() -> None:
    with pytest.raises(InputError, match="id 1 has more than one meaning"):
        Vocabulary(["a", "b"], special={"pad": 0, "cls": 1, "mask": 1, "sep": 1}, context={}, scale=[1, 1])


def test_vocabulary_of_genes_alone(genes: list[str], tmp_path: Path) -> None:
    vocabulary = Vocabulary.of_genes(genes)
    np.testing.assert_array_equal(vocabulary.gene_token_ids, np.arange(len(genes)))
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary
    with pytest.raises(InputError, match="no special token 'cls'; it has: none"):
        _ = vocabulary.cls
    with pytest.raises(InputError, match="at least one gene"):
        Vocabulary.of_genes([])


def test_context_is_listed_in_the_one_order_whatever_the_file_has(vocabulary: Vocabulary, tmp_path: Path) -> None:
    order = ["tissue", "condition", "species", "assay"]
    assert list(vocabulary.context) == order
    vocabulary.save(tmp_path / "vocabulary.json")
    content = json.loads((tmp_path / "vocabulary.json").read_text())
    content["context"] = {kind: content["context"][kind] for kind in ("condition", "tissue", "species", "assay")}
    (tmp_path / "vocabulary.json").write_text(json.dumps(content))
    read = Vocabulary.load(tmp_path / "vocabulary.json")
    assert read == vocabulary
    assert list(read.context) == order
    with pytest.raises(InputError, match="the kinds are: tissue, condition, species, assay"):
        vocabulary.context_id("organ", "Kidney")
