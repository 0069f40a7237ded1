"""Spellings, rare classes and classes that no cell of the query gets are said in sentences."""

import logging

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spaf_analysis as spaf
from spaf_analysis import InputError
from spaf_analysis.annotate.notes import spelling_variants
from spaf_model import SpatialFormer, SpatialFormerConfig, TissueModel, Vocabulary

N_GENES = 40


def cells(n: int, seed: int, kinds: tuple[int, ...] = (0, 1, 2)) -> AnnData:
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(7).lognormal(0.0, 1.0, (3, N_GENES))
    code = np.array(kinds)[rng.integers(0, len(kinds), n)]
    table = AnnData(
        rng.poisson(2 * profile[code]).astype(np.float32), obs=pd.DataFrame(index=[f"c{i}" for i in range(n)])
    )
    table.obs["kind"] = [f"kind {one}" for one in code]
    table.obs[["tissue", "condition", "species", "assay"]] = "unknown"
    table.var_names = [f"G{gene}" for gene in range(N_GENES)]
    table.obsm["spatial"] = rng.uniform(0.0, 1000.0, (n, 2))
    return table


def test_variants_of_a_name_are_found():
    names = ["B cell", "T cell", "t_cell", "T-Cell ", "NK", "T cell 2"]
    assert spelling_variants(names) == [("T cell", "t_cell", "T-Cell ")]
    assert spelling_variants(["a", "b"]) == []


def test_labels_of_two_spellings_are_named_in_a_sentence(caplog):
    reference, query = cells(150, 0), cells(30, 1)
    kinds = reference.obs["kind"].to_numpy().copy()
    kinds[::2] = [kind.replace("kind 1", "Kind_1") for kind in kinds[::2]]
    reference.obs["kind"] = kinds
    with caplog.at_level(logging.WARNING):
        found = spaf.tl.annotate(query, reference, "kind")
    (said,) = [message for message in caplog.messages if "differ in case" in message]
    assert "'Kind_1' and 'kind 1'" in said
    assert "\n" not in said
    assert {"Kind_1", "kind 1"} <= set(found.classes)
    assert said in list(query.uns["label_pred"]["notes"])
    caplog.clear()
    spaf.tl.annotate(query, cells(150, 0), "kind")
    assert not caplog.messages


def test_rare_classes_and_classes_that_the_query_lacks_are_said():
    reference, query = cells(200, 0), cells(60, 1, kinds=(0, 1))
    kinds = reference.obs["kind"].to_numpy().astype(object)
    kinds[:3] = "rare"
    left = np.argsort(reference.obsm["spatial"][:, int(np.ptp(reference.obsm["spatial"], axis=0).argmax())])[:15]
    kinds[left] = "at the edge"
    reference.obs["kind"] = kinds
    spaf.tl.annotate(query, reference, "kind", unknown=0.0)
    notes = list(query.uns["label_pred"]["notes"])
    assert any("fewer than 10 cells" in note and "rare (" in note for note in notes)
    assert any("lie in one held-out part alone" in note and "at the edge" in note for note in notes)
    assert any("No cell of the query is called" in note and "kind 2" in note for note in notes)


def starter() -> SpatialFormer:
    vocabulary = Vocabulary.build([f"G{gene}" for gene in range(N_GENES)], scale=np.ones(N_GENES))
    config = SpatialFormerConfig(width=16, n_layers=1, n_heads=2, conv_kernel=5, colocalization_rank=4)
    model = SpatialFormer(config, vocabulary, seed=0)
    model.network.eval()
    return model


def test_a_model_that_is_trained_for_the_labels_is_one_more_method(tmp_path, monkeypatch):
    from spaf_analysis.annotate import fine_tuned
    from spaf_train import FinetuneConfig

    def quick(method, seed):
        return FinetuneConfig(method=method, seed=seed, steps=4, validate_every=2, rank=4, device="cpu")

    monkeypatch.setattr(fine_tuned, "FinetuneConfig", quick)
    starter().save_pretrained(tmp_path / "model")
    reference, query = cells(150, 0), cells(60, 1)
    before = set(query.obs), set(reference.obs), set(query.obsm)
    found = spaf.tl.annotate(query, reference, "kind", model=tmp_path / "model", fine_tune="lora", unknown=0.0)
    assert (set(query.obs) - before[0], set(reference.obs), set(query.obsm)) == (
        {"label_pred", "label_pred_probability"}, before[1], before[2],
    )  # fmt: skip
    judged = found.judged.set_index("method")
    assert "fine-tuned" in judged.index
    # What is trained stands on the probe of log counts, and is kept only where that is better.
    assert judged.loc["fine-tuned", "macro_f1"] > 0.8
    only = spaf.tl.annotate(
        query, reference, "kind", model=starter(), fine_tune="lora", method="fine-tuned", unknown=0.0
    )
    assert only.method == "fine-tuned"
    assert (query.obs["label_pred"].astype(str) == query.obs["kind"]).mean() > 0.8


def test_what_cannot_be_trained_is_said(tmp_path):
    reference, query = cells(80, 0), cells(20, 1)
    for options, match in (
        ({"method": "fine-tuned"}, "needs to know how: fine_tune \\(--fine-tune\\) lora or full"),
        ({"fine_tune": "lora"}, "fine-tuning needs a model"),
        ({"fine_tune": "some", "model": "starter"}, "fine_tune must be one of full, lora, not 'some'"),
    ):
        with pytest.raises(InputError, match=match):
            spaf.tl.annotate(query, reference, "kind", **options)
        assert "label_pred" not in query.obs
    TissueModel.fit(reference, "neighbours").save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="cannot be (trained|adapted) by batches"):
        spaf.tl.annotate(query, reference, "kind", model=tmp_path / "model", fine_tune="lora")
