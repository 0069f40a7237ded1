import numpy as np
import pandas as pd
import pytest

from spaf_model import CONTEXT_KINDS, InputError, Vocabulary, context_ids


@pytest.fixture
def obs() -> pd.DataFrame:
    columns = {"condition": "Disease", "species": "Human", "assay": "Xenium"}
    table = pd.DataFrame({kind: [name] * 3 for kind, name in columns.items()}, index=["a", "b", "c"])
    table["tissue"] = pd.Categorical(["Lung", "Breast", "Lung"])
    return table


def test_columns_of_obs_in_the_order_of_the_sequence(vocabulary: Vocabulary, obs: pd.DataFrame) -> None:
    ids = context_ids(vocabulary, obs)
    assert CONTEXT_KINDS == ("condition", "tissue", "species", "assay")
    assert ids.dtype == np.int64
    expected = [[vocabulary.context_id(kind, str(obs.iloc[row][kind])) for kind in CONTEXT_KINDS] for row in range(3)]
    assert ids.tolist() == expected
    assert ids[0, 1] != ids[1, 1]


def test_argument_goes_before_the_column(vocabulary: Vocabulary, obs: pd.DataFrame) -> None:
    ids = context_ids(vocabulary, obs, {"tissue": "unknown", "assay": None})
    assert (ids[:, 1] == vocabulary.context_id("tissue", "unknown")).all()


def test_missing_kind_says_what_to_give(vocabulary: Vocabulary, obs: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no column 'assay'; give assay=, one of: unknown, Xenium .'unknown' says"):
        context_ids(vocabulary, obs.drop(columns="assay"))


def test_several_missing_kinds_are_asked_for_together(vocabulary: Vocabulary, obs: pd.DataFrame) -> None:
    words = (
        r"The tissue, species and assay of the cells are not known: obs has no columns of these names; give tissue= "
        r"\(one of: unknown, Breast, Lung\), species= \(one of: .*\) and assay= \(one of: unknown, Xenium\), on the "
        r"command line --tissue, --species and --assay \('unknown' says that one is not known\)\."
    )
    with pytest.raises(InputError, match=words):
        context_ids(vocabulary, obs[["condition"]])
    with pytest.raises(InputError, match="no column 'assay'; give assay="):
        context_ids(vocabulary, obs[["condition"]], {"tissue": "Lung", "species": "Human"})


def test_unknown_name_lists_the_known(vocabulary: Vocabulary, obs: pd.DataFrame) -> None:
    obs["tissue"] = "Kidney"
    with pytest.raises(InputError, match="no tissue 'Kidney'; it knows: unknown, Breast, Lung"):
        context_ids(vocabulary, obs)


def test_cell_without_a_value_is_named(vocabulary: Vocabulary, obs: pd.DataFrame) -> None:
    obs["tissue"] = pd.Categorical(["Lung", None, "Lung"])
    with pytest.raises(InputError, match=r"obs\['tissue'\] has no value for cell 'b'"):
        context_ids(vocabulary, obs)


@pytest.mark.parametrize("words", [["Breast"], ("Breast", "Lung"), 3])
def test_a_context_is_one_word(vocabulary: Vocabulary, words: object) -> None:
    others = {"condition": "Disease", "species": "Human", "assay": "Xenium"}
    with pytest.raises(InputError, match=r"tissue is one word for all cells, not .*put it into obs\['tissue'\]"):
        context_ids(vocabulary, pd.DataFrame(index=["a"]), {"tissue": words, **others})  # type: ignore[dict-item]


def test_what_is_not_needed_may_be_unknown(vocabulary: Vocabulary) -> None:
    obs = pd.DataFrame({"assay": ["Xenium", "tomorrow's", None]}, index=["a", "b", "c"])
    xenium = vocabulary.context_id("assay", "Xenium")
    assert context_ids(vocabulary, obs, needed=()).tolist() == [[-1, -1, -1, xenium], [-1] * 4, [-1] * 4]
    given = context_ids(vocabulary, obs, {"assay": "xenium"}, needed=())
    assert given[:, 3].tolist() == [xenium] * 3
    with pytest.raises(InputError, match="The model knows no assay 'CosMx'"):
        context_ids(vocabulary, obs, {"assay": "CosMx"}, needed=())
    with pytest.raises(InputError, match=r"obs\['assay'\] has no value for cell 'c'"):
        context_ids(vocabulary, obs, needed=("assay",))
