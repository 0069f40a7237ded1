"""Labels in the report: a sentence of what they need, and tables and curves where they are."""

import anndata as ad
import numpy as np

import spaf_analysis as spaf
from spaf_analysis import ReportOptions, make_report, render_html
from spaf_analysis.annotate.section import AnnotationSection


def reported(stages, table):
    return make_report(
        table, model=stages.model, run=stages.run, build=stages.build, options=ReportOptions(),
        sections=[AnnotationSection],
    )  # fmt: skip


def test_without_labels_it_says_what_they_need(stages):
    made = reported(stages, stages.embedded)
    assert "labels" not in made.summary
    page = render_html(made)
    assert "that needs a reference of labelled cells" in page
    assert "--reference REF.h5ad --label COLUMN" in page


def test_labels_are_drawn_and_their_scores_are_those_of_the_record(stages, tmp_path):
    adata = ad.read_h5ad(stages.embedded)
    reference = adata.copy()
    reference.obs["kind"] = np.where(
        reference.obsm["spatial"][:, 1] > np.median(reference.obsm["spatial"][:, 1]), "u", "d"
    )
    spaf.tl.annotate(adata, reference, "kind", key="X_SpaF")
    adata.write_h5ad(tmp_path / "in.h5ad")
    made = reported(stages, tmp_path / "in.h5ad")
    record = adata.uns["label_pred"]
    assert made.summary["labels_method"] == record["method"]
    assert [row["method"] for row in made.summary["labels_judged"]] == list(record["judged"]["method"])
    here = {row["class"]: row["n_here"] for row in made.summary["labels"]}
    assert here == {name: int((adata.obs["label_pred"] == name).sum()) for name in ("d", "u")}
    page = render_html(made)
    assert "How often held-out cells are right" in page
    assert "Accuracy of the cells that are left" in page
    assert "Labels come from a reference, by" in page
    for note in record["notes"]:
        assert note in page
