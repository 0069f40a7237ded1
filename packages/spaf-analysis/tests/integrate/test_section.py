"""Integration in the report: a sentence of what it needs, and the table where there are several slides."""

from dataclasses import replace

import anndata as ad
import numpy as np

from spaf_analysis import ReportOptions, make_report, render_html
from spaf_analysis.integrate.section import IntegrationSection

OPTIONS = ReportOptions(n_replicates=20)


def reported(stages, table, options=OPTIONS):
    return make_report(
        table, model=stages.model, run=stages.run, build=stages.build, options=options, sections=[IntegrationSection]
    )


def test_one_slide_is_a_sentence(stages):
    made = reported(stages, stages.embedded)
    assert made.summary["integration"] == []
    page = render_html(made)
    assert "Nothing was integrated: obs column &#39;slide&#39; (batch) holds only &#39;sim&#39;" in page


def test_two_slides_are_a_table_with_verdicts_where_there_are_labels(stages, tmp_path):
    adata = ad.read_h5ad(stages.embedded)
    middle = np.median(adata.obsm["spatial"], axis=0)
    adata.obs["slide"] = np.where(adata.obsm["spatial"][:, 0] > middle[0], "right", "left")
    adata.obs["kind"] = np.where(adata.obsm["spatial"][:, 1] > middle[1], "up", "down")
    adata.write_h5ad(tmp_path / "in.h5ad")
    page = render_html(reported(stages, tmp_path / "in.h5ad"))
    assert "mixing is measured and not judged" in page
    assert "Against PCA" in page
    made = reported(stages, tmp_path / "in.h5ad", replace(OPTIONS, cell_type="kind"))
    assert {row["method"] for row in made.summary["integration"]} >= {"embedding", "PCA", "random numbers"}
    page = render_html(made)
    assert "For integration the embedding is, against PCA:" in page
    assert "AvgBIO" in page
