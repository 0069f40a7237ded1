import pytest

from spaf_train.objectives.chance import Judgement
from spaf_train.objectives.explained import Explained
from spaf_train.trainer.verdicts import figures_of, nothing_learnt, spoken, table_of


class Bare:
    learnt = True

    def sentence(self):
        return ""


LEARNT = Judgement("pairs", 0.6, 0.01, 0.69, 0.7, 0.01, by_rank=True)
NOT = Judgement("masked", 3.0, 0.01, 3.0)


def test_figures_are_those_that_there_are():
    assert figures_of(Bare()) == {"learnt": True}
    assert figures_of(NOT) == {"learnt": False, "loss": 3.0, "chance": 3.0}
    assert figures_of(LEARNT) == {"learnt": True, "loss": 0.6, "chance": 0.69, "auroc": 0.7}
    assert "auroc" not in figures_of(Judgement("pairs", 0.6, 0.0, 0.69, float("nan")))


@pytest.mark.parametrize(
    ("verdicts", "not_learnt", "said"),
    [
        ({"masked": figures_of(NOT)}, {"masked": "Nothing."}, True),
        ({"masked": figures_of(NOT), "pairs": figures_of(LEARNT)}, {"masked": "Nothing."}, False),
        ({"pairs": figures_of(LEARNT)}, {}, False),
        ({}, {}, False),  # nothing was validated
        ({}, {"contrast": "Never asked."}, True),
    ],
)
def test_a_run_that_learnt_nothing_of_all_is_told_what_to_change(verdicts, not_learnt, said):
    sentence = nothing_learnt(verdicts, not_learnt, steps=1_200)
    assert bool(sentence) == said
    if said:
        assert sentence.startswith(f"This run has learnt nothing in 1,200 steps ({', '.join(not_learnt)})")


def test_each_objective_stands_beside_chance_and_its_baseline():
    found = {"genes": figures_of(LEARNT) | {"baseline": "smaller of two counts", "baseline_auroc": 0.65}}
    assert spoken("genes", found["genes"]) == (
        "genes was learnt: loss 0.600 (chance 0.690), AUROC 0.700 (chance 0.500), smaller of two counts 0.650."
    )
    assert spoken("masked", figures_of(NOT)) == "masked was NOT learnt: loss 3.000 (chance 3.000)."
    assert table_of(found, {"genes": "gene pairs"})[2] == (
        "| gene pairs | 0.600 | 0.690 | 0.700 | 0.500 | 0.650 (smaller of two counts) | yes |"
    )
    assert table_of({"masked": figures_of(NOT)}, {})[2] == "| masked | 3.000 | 3.000 | - | - | - | **no** |"
    assert table_of({}, {}) == []


def test_what_is_told_by_a_share_of_what_gene_means_leave():
    verdict = Explained("cells from their neighbourhood", 0.3, 0.24, "the weighted mean of the neighbours")
    found = figures_of(verdict)
    assert found == {
        "learnt": True, "explained": 0.3, "baseline": "the weighted mean of the neighbours", "baseline_explained": 0.24,
    }  # fmt: skip
    assert spoken("neighbourhood", found) == (
        "neighbourhood was learnt: explains 0.300 of what the mean of each gene leaves, the weighted mean of the "
        "neighbours 0.240."
    )
    assert table_of({"neighbourhood": found}, {})[2] == (
        "| neighbourhood | explains 0.300 | - | - | - | 0.240 (the weighted mean of the neighbours) | yes |"
    )
    assert figures_of(Explained("values", float("nan"))) == {"learnt": False}
