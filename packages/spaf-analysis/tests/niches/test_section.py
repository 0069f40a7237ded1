"""Niches in the report: found, judged where regions are named, and a sentence where there are none."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest

from spaf_analysis import InputError, ReportOptions, make_report, render_html
from spaf_analysis.clusters.section import ClustersSection
from spaf_analysis.niches.section import NichesSection

OPTIONS = ReportOptions(n_replicates=20, resolution=0.5, n_domains=3)


def reported(stages, table, options=OPTIONS):
    return make_report(
        table, model=stages.model, run=stages.run, build=stages.build, options=options,
        sections=[ClustersSection, NichesSection],
    )  # fmt: skip


def test_niches_are_on_the_page(stages):
    made = reported(stages, stages.embedded)
    section = made["niches"]
    assert made.summary["n_niches"] == len(section.niches) == 3
    assert section.niches["n_cells"].sum() == made.summary["n_cells"]
    assert section.groups == "spaf_cluster"
    page = render_html(made)
    assert "the cells lie in 3 niches" in page
    assert "is what <code>spaf-analysis niches --condition" in page


def test_named_regions_judge_them(stages, tmp_path):
    adata = ad.read_h5ad(stages.embedded)
    adata.obs["side"] = np.where(adata.obsm["spatial"][:, 0] > np.median(adata.obsm["spatial"][:, 0]), "right", "left")
    adata.write_h5ad(tmp_path / "in.h5ad")
    made = reported(stages, tmp_path / "in.h5ad", replace(OPTIONS, label="side", cell_type="side"))
    assert len(made.summary["niches_judged"]) == 7
    assert made["niches"].groups == "side"
    assert "PCA averaged twice" in render_html(made)
    with pytest.raises(InputError, match="obs has no column 'none' \\(label\\)"):
        reported(stages, tmp_path / "in.h5ad", replace(OPTIONS, label="none"))


def test_few_cells_are_a_sentence(stages, tmp_path):
    adata = ad.read_h5ad(stages.embedded)[:20].copy()
    adata.write_h5ad(tmp_path / "few.h5ad")
    made = make_report(
        tmp_path / "few.h5ad", model=stages.model, run=stages.run, build=stages.build, options=OPTIONS,
        sections=[NichesSection],
    )  # fmt: skip
    assert made.summary["n_niches"] is None
    assert "There are no niches: the table holds 20 cells" in render_html(made)
