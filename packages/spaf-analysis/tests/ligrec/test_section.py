import pandas as pd
import pytest

from spaf_analysis import ReportOptions, make_report, render_html, tl
from spaf_analysis.ligrec.section import LigrecSection
from spaf_analysis.tables import read_table


@pytest.mark.parametrize("is_there", [False, True])
def test_the_section_says_what_was_found_or_what_is_needed(stages, tmp_path, is_there):
    adata = read_table(stages.embedded)
    genes = adata.var_names
    if is_there:
        pairs = pd.DataFrame({"ligand": genes[:3], "receptor": genes[3:6]})
        other = pairs.set_axis(["gene_a", "gene_b"], axis=1).assign(called=[True, False, False])
        tl.ligrec(adata, resource=pairs, cell_type="split", min_cells=1, beside={"attention": other})
    path = tmp_path / "in.h5ad"
    adata.write_h5ad(path)
    places = {"model": stages.model, "run": stages.run, "build": stages.build}
    made = make_report(path, **places, options=ReportOptions(), sections=(LigrecSection,))
    page = render_html(made)
    if is_there:
        assert made.summary["n_ligrec_tested"] == 3
        assert "The panel measures 3 of the 3 ligand-receptor pairs of a table" in page
        assert "pairs of the resource" in page
    else:
        assert "n_ligrec_tested" not in made.summary
        assert "spaf-analysis ligrec IN.h5ad --cell-type COLUMN" in page
