"""The section of the report on what spots are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from spaf_analysis.errors import InputError
from spaf_analysis.keys import PROPORTIONS
from spaf_analysis.plots.maps import tissue_values
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.report.slides import largest_slides
from spaf_analysis.tables import places_of

if TYPE_CHECKING:
    import anndata as ad

_MAPS = 2  # types drawn: those whose proportions vary most


@dataclass(frozen=True)
class DeconvolutionSection(Section):
    """Proportions of cell types, where `spaf_analysis.tl.deconvolve` has written them.

    Attributes
    ----------
    types
        A row a type: mean proportion, its standard deviation over spots, mean standard error. None where nothing was
        written.
    record
        What was done, as in `uns`.
    """

    types: pd.DataFrame | None
    record: dict[str, Any]
    figures: tuple[Picture, ...]

    anchor = "deconvolution"
    title = "What spots are made of"
    doing = "drawing proportions of cell types"
    template = """
{% if section.types is none %}
<p class="note">No proportions of cell types were written; for spots of several cells,
<code>spaf-analysis deconvolve SPOTS.h5ad --reference CELLS.h5ad --label COLUMN -o SPOTS_WITH.h5ad</code> does.</p>
{% else %}
<p>Method: {{ section.record.method }}. {% for sentence in sentences %}{{ sentence }} {% endfor %}</p>
<div class="two wide">
<div>{{ show(section.figures) }}</div>
<div class="scroll"><table>
<caption>Shares of cells over all spots.</caption>
<thead><tr><th class="text">Type</th><th>Mean</th><th>Deviation over spots</th><th>Standard error</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="text">{{ row.type }}</td><td>{{ row.mean | figure(3) }}</td><td>{{ row.deviation | figure(3) }}</td>
<td>{% if row.error == row.error %}{{ row.error | figure(3) }}{% else %}–{% endif %}</td></tr>
{% endfor %}
</tbody></table></div>
</div>
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Sum up the proportions and draw the types that vary most."""
        adata = context.adata
        found = adata.obsm.get(PROPORTIONS)
        if not isinstance(found, pd.DataFrame):
            return cls(None, {}, ())
        error = adata.obsm.get(f"{PROPORTIONS}_error")
        types = pd.DataFrame(
            {
                "type": found.columns.astype(str),
                "mean": found.mean().to_numpy(),
                "deviation": found.std().to_numpy(),
                "error": error.mean().to_numpy() if isinstance(error, pd.DataFrame) else np.nan,
            }
        ).sort_values("mean", ascending=False, kind="stable", ignore_index=True)
        return cls(types, dict(adata.uns.get(PROPORTIONS, {})), _maps(adata, found, context.options.max_slides))

    def numbers(self) -> dict[str, Any]:
        """Return the mean proportions; nothing where there are none."""
        if self.types is None:
            return {}
        return {"mean_proportions": dict(zip(self.types["type"], self.types["mean"].tolist(), strict=True))}

    def view(self) -> dict[str, Any]:
        """Return the rows of the table and what should be known of it."""
        said = []
        if self.record.get("n_without_fit"):
            said.append(f"{self.record['n_without_fit']} spots are made of something that the reference does not hold.")
        if len(self.record.get("alike", ())):
            pairs = "; ".join(str(pair) for pair in self.record["alike"])
            said.append(f"Types that are hardly told apart, with their correlation: {pairs}.")
        return {"rows": [] if self.types is None else self.types.to_dict(orient="records"), "sentences": said}


def _maps(adata: ad.AnnData, found: pd.DataFrame, max_slides: int) -> tuple[Picture, ...]:
    try:
        xy = places_of(adata)
    except InputError:
        return ()
    most = found.std().sort_values(ascending=False, kind="stable").index[:_MAPS]
    drawn = []
    for name, spots, ending in largest_slides(adata, max_slides):
        for kind in most:
            values = found[kind].to_numpy()[spots]
            there = np.isfinite(values)
            drawn.append(
                Picture.of(
                    tissue_values(xy[spots][there], values[there], title=f"{kind}{ending}", label="share of the cells"),
                    f"Map of {name}, coloured by the proportion of {kind}.",
                    f"Proportion of {kind}; the colours end at the 99th percentile.",
                )
            )
    return tuple(drawn)
