"""The rule of what gene a name is stands once in the data and once in the model; here they are held together."""

import numpy as np
import pytest

from spaf_data import gene_identity as of_data
from spaf_model import Vocabulary
from spaf_model import gene_identity as of_model

IDS = [f"ENSG{number:011d}" for number in range(3)]
NAMES = ["EPCAM", "NA", "", "ENSA", "ENSG00000119888", "ENSG00000119888.16", "ENSMUSG00000021950", "ENSG1.x", "7157"]
NAMES += [" EPCAM ", "ensg00000119888.16", " ENSG00000119888", "GRCh38_EPCAM", "7157.0"]


@pytest.mark.parametrize("name", NAMES)
def test_both_know_the_same_ensembl_ids(name):
    assert of_data.ensembl_id(name) == of_model.ensembl_id(name)
    assert of_data.plain_id(name) == of_model.plain_id(name)
    assert of_data.without_genome([name]) == of_model.without_genome([name])
    for pattern in ("_ENSEMBL", "_WHOLE", "_GENOME"):
        assert getattr(of_data, pattern) == getattr(of_model, pattern)


@pytest.mark.parametrize(
    ("genes", "gene_ids"),
    [
        (["A", "B", "C"], None),
        (IDS, None),
        ([f"{one}.3" for one in IDS], None),
        (["x", "y", "z"], [f"{one}.3" for one in IDS]),
        (["A", "A too", "C"], [IDS[0], f"{IDS[0]}.4", IDS[2]]),
        (["A", "B", "D"], ["", "", ""]),
        ([" A", "B ", "C"], None),
        ([one.lower() for one in IDS], None),
        (["x", "y", "z"], [f" {one.lower()}.3 " for one in IDS]),
        (["GRCh38_A", "GRCh38_C", "GRCh38_D"], None),
        (["GRCh38_A", "mm10_C", "B"], None),
        (["A", "B", "C"], ["A", "B", "C"]),
    ],
)
def test_a_model_reads_the_genes_that_its_corpus_joins(genes, gene_ids):
    known = of_data.GeneNames(where="first", names=["A", "B", "C"], gene_ids=IDS)
    joined = of_data.join_genes([known, of_data.GeneNames(where="second", names=genes, gene_ids=gene_ids)])
    vocabulary = Vocabulary.build(["A", "B", "C"], scale=np.ones(3), gene_ids=IDS)
    found = vocabulary.look_up(genes, gene_ids).token_ids - vocabulary.gene_token_ids[0]
    expected = [column if column < 3 else -1 for column in joined.columns[1]]
    assert np.where(found < 0, -1, found).tolist() == expected
