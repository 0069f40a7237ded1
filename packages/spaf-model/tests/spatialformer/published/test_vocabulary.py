import json
import pickle
import zipfile
from typing import Any

import pytest

from spaf_model import InputError
from spaf_model.spatialformer.published.vocabulary import read_vocabulary, read_wheel_vocabulary


def test_ids_are_kept_and_the_separator_is_no_gene(published: Any) -> None:
    vocabulary = read_vocabulary(published.vocabulary, published.scale)
    ids = json.loads(published.vocabulary.read_text())
    assert vocabulary.tokens == sorted(ids, key=ids.__getitem__)
    assert (vocabulary.pad, vocabulary.cls, vocabulary.mask, vocabulary.sep) == (0, 1, 2, 40)
    assert vocabulary.gene_token_ids.tolist() == [token for token in range(27, 60) if token != 40]
    assert vocabulary.context_id("condition", "Disease") == 26
    assert vocabulary.context_id("species", "Mouse") == 4
    assert vocabulary.context_id("assay", "CosMx") == 7
    assert vocabulary.context_id("tissue", "Lymph Node") == 16
    assert vocabulary.context_id("tissue", "LymphNode") == 23
    assert len(vocabulary.context["tissue"]) == 17


def test_genes_are_scaled_by_their_medians_and_the_rest_by_1(published: Any) -> None:
    vocabulary = read_vocabulary(published.vocabulary, published.scale)
    by_name = dict(zip(vocabulary.tokens, vocabulary.scale.tolist(), strict=True))
    assert (by_name["GENE0"], by_name["GENE1"], by_name["GENE30"]) == (4.0, 2.5, 3.0)
    assert {value for name, value in by_name.items() if name not in ("GENE0", "GENE1", "GENE30")} == {1.0}


def test_unknown_is_not_a_published_name(published: Any) -> None:
    vocabulary = read_vocabulary(published.vocabulary, published.scale)
    with pytest.raises(InputError, match="knows no tissue 'unknown'; it knows: Lung, Bone, .*, BoneMarrow"):
        vocabulary.context_id("tissue", "unknown")


def test_wheel_holds_both_generations(published: Any) -> None:
    assert read_wheel_vocabulary(published.wheel, "v2") == read_vocabulary(published.vocabulary, published.scale)
    older = read_wheel_vocabulary(published.wheel, "v1")
    assert older.n_tokens == 50
    assert older.sep == 40


def test_files_that_are_not_the_wheel(published: Any) -> None:
    with pytest.raises(InputError, match="is not a wheel, or is damaged"):
        read_wheel_vocabulary(published.scale, "v2")
    with zipfile.ZipFile(published.wheel, "w") as archive:
        archive.writestr("spatialformer/tokenizer/tokenv5.json", "{}")
    with pytest.raises(InputError, match=r"has no spatialformer/data/gene_median\.pkl"):
        read_wheel_vocabulary(published.wheel, "v2")
    with pytest.raises(FileNotFoundError):
        read_wheel_vocabulary(published.folder / "none.whl", "v2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must hold a JSON object of tokens and their ids"),
        ('{"<PAD>": "0"}', "must hold a JSON object of tokens and their ids"),
        ('{"<PAD>": 0, "<CLS>": 0}', "must use each id from 0 to 1 once"),
        ('{"<PAD>": 0, "<CLS>": 1, "A": 2, "Human": 3}', "no <MASK>, <SEP>, token for a condition, token for a tissue"),
    ],
)
def test_files_that_are_not_a_vocabulary(published: Any, content: str, message: str) -> None:
    published.vocabulary.write_text(content)
    with pytest.raises(InputError, match=r"tokenv5\.json") as error:
        read_vocabulary(published.vocabulary, published.scale)
    assert message in str(error.value)


def test_median_that_vanishes_in_single_precision(published: Any) -> None:
    published.scale.write_bytes(pickle.dumps({"GENE3": 1e-60}))
    with pytest.raises(InputError, match=r"tokenv5\.json with gene_median\.pkl: scale must be above 0; token 'GENE3'"):
        read_vocabulary(published.vocabulary, published.scale)
