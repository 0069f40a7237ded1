"""The section of the report in which tissue, UMAP and a table of the cells react to each other."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from spaf_analysis.clusters.section import ClustersSection
from spaf_analysis.keys import CLUSTERS, N_TRANSCRIPTS, SLIDE
from spaf_analysis.plots.style import category_colors
from spaf_analysis.report.section import Context, Section
from spaf_analysis.tables import places_of

MOST_CELLS = 50_000  # with more, the page would grow by more than 3 MB and a browser would answer slowly
_STEPS = 2**16 - 1


@dataclass(frozen=True)
class LinkedSection(Section):
    """Linked pictures of the cells of the UMAP; none where there are more than `MOST_CELLS`.

    Attributes
    ----------
    n_cells
        Cells of the table.
    data
        What the script of the page reads: columns as base64 of little-endian numbers; None where there are too many
        cells.
    """

    n_cells: int
    data: dict[str, Any] | None

    anchor = "linked"
    title = "Explore the cells"
    doing = "linking tissue, UMAP and cells"
    template = """
{% if section.data is none %}
<p class="note">Linked pictures are made of at most {{ most | count }} cells, and here are
{{ section.n_cells | count }}: the pictures of the other sections show them.</p>
{% else %}
<div id="linked-cells">
<noscript><p class="note">This part needs JavaScript; the pictures of the other sections do not.</p></noscript>
<p>Drag a rectangle over cells of the tissue or of the UMAP, or click on one cell: the other picture and the table show
the same cells. Names in the table put a ring around a cell. Micrometres are those of the instrument.</p>
<p class="controls"><label>Slide <select data-slide>{% for name in section.data.slides %}
<option value="{{ loop.index0 }}">{{ name }}</option>{% endfor %}</select></label>
<label>Cluster <select data-cluster><option value="">all</option>{% for name in section.data.clusters_named %}
<option value="{{ loop.index0 }}">{{ name }}</option>{% endfor %}</select></label>
<button type="button" data-clear>Show all cells</button> <output aria-live="polite"></output></p>
<div class="two">
<canvas width="560" height="560" data-view="tissue" role="img"
aria-label="Tissue: cells at their places, coloured by cluster; the table below lists those that are chosen."></canvas>
<canvas width="560" height="560" data-view="umap" role="img"
aria-label="UMAP of the same cells, coloured by cluster; the table below lists those that are chosen."></canvas>
</div>
<div class="scroll rows"><table>
<thead><tr><th class="text">Cell</th><th class="text">Slide</th><th class="text">Cluster</th>
<th>Transcripts</th><th>x (µm)</th><th>y (µm)</th></tr></thead><tbody></tbody></table></div>
</div>
<script type="application/json" id="linked-data">{{ section.data | tojson }}</script>
<script>{{ script }}</script>
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Pack places, UMAP, clusters and transcripts of the cells that the UMAP shows."""
        adata, umap = context.adata, context.section(ClustersSection)
        if adata.n_obs > MOST_CELLS:
            return cls(adata.n_obs, None)
        obs = adata.obs.iloc[umap.cells]
        labels = obs[CLUSTERS].cat
        names = obs[SLIDE].astype(str).to_numpy() if SLIDE in obs else np.full(len(obs), "the tissue")
        slides, slides_of = np.unique(names, return_inverse=True)
        places, origins, scale = on_grid(places_of(adata)[umap.cells], slides_of)
        layout, _, _ = on_grid(umap.layout, np.zeros(len(obs), dtype=np.int64))
        clusters = [str(name) for name in labels.categories]
        data = {
            "names": obs.index.astype(str).tolist(),
            "slides": slides.tolist(),
            "slides_of": _packed(slides_of, "<u2"),
            "clusters_named": clusters,
            "colors": category_colors(len(clusters)),
            "clusters": _packed(
                labels.codes.to_numpy().astype(np.int64) % 2**16, "<u2"
            ),  # none, -1, is the last number
            "transcripts": _packed(obs[N_TRANSCRIPTS].to_numpy(), "<u4"),
            "places": _packed(places, "<u2"),
            "origins": origins.tolist(),
            "scale": scale,
            "layout": _packed(layout, "<u2"),
        }
        return cls(adata.n_obs, data)

    def view(self) -> dict[str, Any]:
        """Give the script, and how many cells it is for."""
        script = (resources.files("spaf_analysis.report") / "templates" / "linked.js").read_text("utf-8")
        return {"script": Markup(script), "most": MOST_CELLS}  # a file of the package, so no user's text


def on_grid(
    points: NDArray[np.floating], groups: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Round points to 65,536 steps an axis, each group from its own lowest corner and all on one scale.

    Parameters
    ----------
    points
        Points x 2, finite.
    groups
        Number of the group of each point, 0 to n_groups - 1, none without a point.

    Returns
    -------
    tuple
        Steps (points x 2), the corner of each group (n_groups x 2), and the length of a step in the unit of the points.
    """
    points = np.asarray(points, dtype=np.float64)
    origins = np.stack([points[groups == group].min(axis=0) for group in range(int(groups.max()) + 1)])
    moved = points - origins[groups]
    scale = float(moved.max()) / _STEPS or 1.0
    return np.rint(moved / scale).astype(np.int64), origins, scale


def _packed(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode("ascii")
