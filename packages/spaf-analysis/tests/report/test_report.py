import json
import re
import shutil
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from matplotlib.figure import Figure

from spaf_analysis import InputError, ReportOptions, make_report, render_html, write_report
from spaf_analysis.cell_pairs import SCORES
from spaf_analysis.clusters.section import ClustersSection
from spaf_analysis.report import Card, Picture, Section
from spaf_analysis.report.inputs import read_inputs

OPTIONS = ReportOptions(max_pairs=60, n_replicates=50, resolution=0.5, n_domains=3)


@pytest.fixture(scope="module")
def report(stages):
    return make_report(stages.embedded, model=stages.model, run=stages.run, build=stages.build, options=OPTIONS)


@pytest.fixture(scope="module")
def html(report):
    return render_html(report)


def changed(stages, folder, change):
    """A copy of the embedded table with something changed."""
    adata = ad.read_h5ad(stages.embedded)
    change(adata)
    adata.write_h5ad(folder / "changed.h5ad")
    return make_report(folder / "changed.h5ad", model=stages.model, run=stages.run, build=stages.build, options=OPTIONS)


def test_summary_has_the_numbers_of_the_table(stages, report):
    adata, summary = ad.read_h5ad(stages.embedded), report.summary
    assert summary["n_cells"] == adata.n_obs
    assert summary["n_genes"] == adata.n_vars
    assert summary["n_transcripts"] == adata.obs["n_transcripts"].sum() == adata.X.sum()
    assert summary["n_gene_pairs"] == (adata.obsm["colocalization"] > 0).max(axis=0).sum()
    assert summary["account"]["read"] >= summary["n_transcripts"]
    assert set(summary["seconds"]) == set(summary["peak_rss_mb_per_step"]) == {"build", "pretrain", "embed", "report"}
    assert summary["seconds"]["pretrain"] == 12.5
    assert summary["peak_rss_mb"] == max(summary["peak_rss_mb_per_step"].values())
    for name in ("pair_auroc_30um", "pair_auroc_30um_pca", "pair_auroc_30um_hard", "pair_auroc_30um_minus_pca"):
        low, high = summary[f"{name}_interval"]
        assert low <= summary[name] <= high
    assert len(summary["cell_pairs"]) == 4 * 2 * (len(SCORES) - 1)  # of a tower there are too few cells
    json.dumps(summary, allow_nan=False)


def test_page_says_what_the_summary_says(report, html):
    text = re.sub(r"<[^>]+>|\s+", " ", html)
    for name in ("n_cells", "n_transcripts", "n_genes", "n_gene_pairs", "n_validation_cells"):
        assert f"{report.summary[name]:,}" in text
    for row in report.summary["cell_pairs"]:
        assert f"{row['auroc']:.3f}" in text
    assert f"{report.summary['pair_auroc_30um']:.3f}" in html
    assert f"{report['account'].account['unassigned']:,}" in html
    for gene in report["umap"].clusters["genes"].iloc[0]:
        assert gene in html


def test_page_loads_nothing(html):
    assert not re.search(r"<(link|iframe|object|embed)\b|<script\b[^>]*\bsrc\b", html)
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\b\s*\(", html)
    assert "@import" not in html
    assert "url(" not in html
    for target in re.findall(r'(?:src|href)="([^"]*)"', html):
        assert target.startswith(("#", "data:image/svg+xml;base64,"))
    assert len(re.findall(r"<img ", html)) >= 8
    assert all(re.findall(r'<img [^>]*alt="([^"]{20,})"', html))


def test_contents_lead_to_sections(html):
    for target in re.findall(r'href="#([^"]+)"', html):
        assert f'id="{target}"' in html


def test_text_from_files_is_escaped(html):
    assert "A card &lt;with&gt; brackets" in html
    assert "<with>" not in html


def test_two_reports_differ_in_their_timings_only(stages, report):
    again = make_report(stages.embedded, model=stages.model, run=stages.run, build=stages.build, options=OPTIONS)
    timed = ("seconds", "peak_rss_mb", "peak_rss_mb_per_step")
    assert {k: v for k, v in again.summary.items() if k not in timed} == {
        k: v for k, v in report.summary.items() if k not in timed
    }
    # The last section says how long it took.
    assert report.sections[-1].anchor == "provenance"
    timed_as = replace(again, sections=(*again.sections[:-1], report.sections[-1]), summary=report.summary)
    assert render_html(timed_as) == render_html(report)


def test_validation_cells_far_too_few(stages, tmp_path):
    def no_validation(adata):
        adata.obs["split"] = adata.obs["split"].astype(str).replace("validation", "gap")

    made = changed(stages, tmp_path, no_validation)
    assert made["pairs"].benchmark.evaluation is None
    assert made.summary["pair_auroc_30um"] is None
    assert "Not judged: only 0 cells were held out for validation." in render_html(made)


def in_a_square(part, side):
    def change(adata):
        rows = np.flatnonzero(adata.obs["split"] == part)
        far = 1e4 if part == "validation" else 0.0
        adata.obsm["spatial"][rows] = np.random.default_rng(0).uniform(far, far + side, (rows.size, 2))

    return change


def test_a_region_with_close_negatives_alone_gives_the_figures_that_can_be_had(stages, tmp_path):
    made = changed(stages, tmp_path, in_a_square("validation", 100.0))
    html, summary = render_html(made), made.summary
    assert summary["pair_auroc_30um"] is None
    assert summary["pair_auroc_30um_hard"] is not None
    assert f"80–150 µm apart with an AUROC of {summary['pair_auroc_30um_hard']:.3f}" in html
    (sentence,) = summary["not_judged"]
    assert sentence.startswith("Neighbours were not judged against cells more than 150 µm apart")
    assert sentence in html
    assert not re.search(r"\bnan\b", html)


def test_a_baseline_that_could_not_be_trained_is_named(stages, tmp_path):
    made = changed(stages, tmp_path, in_a_square("train", 50.0))
    html = render_html(made)
    for sentence, name in zip(
        made.summary["not_judged"], ("logistic regression on pairs", "pair network"), strict=True
    ):
        assert f"{name}” was not judged: the training region has no neighbours" in sentence
        assert sentence in html
    assert made.summary["pair_auroc_30um_logistic"] is None
    assert made.summary["pair_auroc_30um"] is not None


def test_what_was_not_learnt_is_on_the_page(stages, tmp_path):
    shutil.copytree(stages.run, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    sentence = "Nothing was learnt of cell pairs: on the validation split the loss is 0.6931."
    record |= {"not_learnt": {"pairs": sentence}, "left_out": {"colocalization": "nothing is known of it"}}
    record |= {"objectives": {"pairs": {"learnt": False, "loss": 0.6931, "chance": 0.6929, "auroc": 0.503}}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    made = make_report(
        stages.embedded, model=stages.model, run=tmp_path / "run", build=stages.build, options=OPTIONS
    )  # fmt: skip
    html = render_html(made)
    assert made.summary["not_learnt"] == {"pairs": sentence}
    assert sentence in html
    assert "Of 1 of its training tasks the model has learnt nothing" in html
    assert "The task colocalization was left out: nothing is known of it." in html
    assert "<td>pairs</td>\n<td>0.693</td>\n<td>0.693</td>\n<td>0.503</td>" in html
    nothing = "This run has learnt nothing in 20 steps (pairs): do not use the model."
    (tmp_path / "run" / "run.json").write_text(json.dumps({"nothing_learnt": nothing} | record))
    made = make_report(stages.embedded, model=stages.model, run=tmp_path / "run", build=stages.build, options=OPTIONS)
    assert made["training"].sentences()[0].startswith(nothing)
    assert f"<b>{nothing}</b>" in render_html(made)


def test_gene_that_is_asked_for(stages, tmp_path, report):
    gene = report["tissue"].gene.name
    adata = ad.read_h5ad(stages.embedded)
    other = str(next(name for name in adata.var_names if name != gene))
    paths = {"model": stages.model, "run": stages.run, "build": stages.build}
    made = make_report(stages.embedded, **paths, options=replace(OPTIONS, gene=other))
    assert made["tissue"].gene.name == other
    assert not made["tissue"].gene.chosen
    assert f"{other} was asked for" in render_html(made)
    with pytest.raises(InputError, match="the table has no gene 'NOPE'"):
        make_report(stages.embedded, **paths, options=replace(OPTIONS, gene="NOPE"))


def test_cells_without_embedding_are_counted(stages, tmp_path):
    def lose(adata):
        adata.obsm["X_SpaF"][:7] = np.nan

    made = changed(stages, tmp_path, lose)
    assert made["account"].n_not_embedded == 7
    assert "7 cells hold no gene that the model knows" in render_html(made)
    assert made["umap"].clusters["n_cells"].sum() == made.summary["n_cells"] - 7


def test_large_table_is_subsampled_for_the_umap_and_says_so(stages):
    made = make_report(
        stages.embedded, model=stages.model, run=stages.run, build=stages.build, options=replace(OPTIONS, umap_cells=50)
    )
    assert "50 of" in made["umap"].figures[0].caption
    assert made["umap"].clusters["n_cells"].sum() == made.summary["n_cells"]


def test_table_without_gene_pairs_and_graph(stages, tmp_path):
    def bare(adata):
        for key in [key for key in adata.uns if key.startswith("colocalization")]:
            del adata.uns[key]
        del adata.obsm["colocalization"]
        del adata.obsp["spatial_connectivities"]

    html = render_html(changed(stages, tmp_path, bare))
    assert "The slide holds no co-localised gene pairs." in html
    assert "because it is found in most cells" in html


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda s: s.embedded.unlink(), "there is no file .*embedded.h5ad"),
        (lambda s: s.embedded.write_bytes(b"not an h5ad"), "embedded.h5ad cannot be read as an h5ad file"),
        (lambda s: shutil.rmtree(s.model), "there is no model directory at"),
        (lambda s: shutil.rmtree(s.build), "there is no build at"),
        (lambda s: (s.run / "run.json").unlink(), "run.json is missing: spaf-train pretrain writes it last"),
        (lambda s: (s.run / "run.json").write_text("{"), "run.json is not valid JSON"),
        (lambda s: (s.run / "metrics.csv").write_text("a,b\n1,2\n"), "metrics.csv has no column 'step'; it has: a, b"),
        (lambda s: (s.run / "metrics.csv").write_text(""), "metrics.csv is no table"),
    ],
)
def test_missing_and_broken_inputs_are_named(stages, tmp_path, break_it, sentence):
    for name in ("build", "run"):
        shutil.copytree(getattr(stages, name), tmp_path / name, ignore=shutil.ignore_patterns("corpus"))
    shutil.copy(stages.embedded, tmp_path)
    copy = replace(
        stages, build=tmp_path / "build", run=tmp_path / "run", model=tmp_path / "run" / "model",
        embedded=tmp_path / "embedded.h5ad",
    )  # fmt: skip
    break_it(copy)
    with pytest.raises(InputError, match=sentence):
        make_report(copy.embedded, model=copy.model, run=copy.run, build=copy.build, options=OPTIONS)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a.obsm.pop("X_SpaF"), r"has no embedding obsm\['X_SpaF'\]"),
        (lambda a: a.obsm.pop("spatial"), r"has no coordinates obsm\['spatial'\]"),
        (lambda a: a.obs.pop("split"), "has no obs column 'split'"),
        (lambda a: a.obs.pop("n_transcripts"), "has no obs column 'n_transcripts'"),
    ],
)
def test_incomplete_tables_are_named(stages, tmp_path, change, sentence):
    with pytest.raises(InputError, match=sentence):
        changed(stages, tmp_path, change)


def test_nothing_is_left_half_written(report, tmp_path):
    with pytest.raises(InputError, match="the folder .*nowhere does not exist"):
        write_report(report, tmp_path / "page.html", tmp_path / "nowhere" / "summary.json")
    assert list(tmp_path.iterdir()) == []
    write_report(report, tmp_path / "page.html", tmp_path / "summary.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text()) == report.summary


class Extra(Section):
    """A section of somebody else: one class, and the report knows nothing of it."""

    anchor = "extra"
    title = "How many <genes> a cell has"
    template = "<p>{{ mean | figure(1) }} on average.</p>{{ show(section.figures) }}"

    def __init__(self, mean, figures):
        self.mean, self.figures = mean, figures

    @classmethod
    def compute(cls, context):
        n_genes = np.diff(context.adata.X.tocsr().indptr)
        assert len(context.section(ClustersSection).clusters)  # may ask for what another has computed
        axes = Figure().add_subplot()
        axes.hist(n_genes)
        return cls(float(n_genes.mean()), (Picture.of(axes, "A histogram.", "Genes of a cell."),))

    def numbers(self):
        return {"mean_genes": self.mean}

    def sentences(self):
        return (f"A cell has {self.mean:.1f} <genes>.",)

    def cards(self):
        return (Card(f"{self.mean:.0f}", "genes in a cell"),)

    def view(self):
        return {"mean": self.mean}


def test_a_section_is_added_by_one_class(stages):
    paths = {"model": stages.model, "run": stages.run, "build": stages.build}
    made = make_report(stages.embedded, **paths, options=OPTIONS, sections=(Extra, ClustersSection))
    assert [section.anchor for section in made.sections] == ["extra", "umap"]
    assert made.summary["mean_genes"] == made["extra"].mean
    assert set(made.summary) == {"n_cells", "n_transcripts", "n_genes", "mean_genes"}
    html = render_html(made)
    mean = f"{made['extra'].mean:.1f}"
    assert f"<p>{mean} on average.</p>" in html
    assert f"A cell has {mean} &lt;genes&gt;." in html
    assert '<li><a href="#extra">How many &lt;genes&gt; a cell has</a></li>' in html
    assert "<span>genes in a cell</span>" in html
    assert "Genes of a cell." in html
    with pytest.raises(KeyError, match="no section 'pairs'; there are: extra, umap"):
        made["pairs"]


def test_choices_left_open_are_in_the_record(report):
    assert report["provenance"].records[-1].parameters["gene"] == report["tissue"].gene.name


def test_a_shipped_model_goes_by_its_name(stages):
    with pytest.raises(InputError, match="no model directory at beginner; .* these come with spaf-model: .*starter"):
        make_report(stages.embedded, model="beginner", run=stages.run, build=stages.build, options=OPTIONS)
    inputs = read_inputs(stages.embedded, model="starter", run=stages.run, build=stages.build)
    assert inputs.model.source == "starter"
