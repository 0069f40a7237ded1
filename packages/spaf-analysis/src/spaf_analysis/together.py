"""The tables of several slides as one, for one embedding and one report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from spaf_analysis.errors import InputError
from spaf_analysis.genes import SharedGenes, genes_in_all
from spaf_analysis.keys import COLOCALIZATION, SLIDE, SPATIAL
from spaf_analysis.tables import read_table

_GRAPH = ("spatial_connectivities", "spatial_distances")


def one_table(files: Sequence[str | Path]) -> ad.AnnData:
    """Put the slide tables of a build into one.

    Parameters
    ----------
    files
        What `spaf-data build` wrote to ``slides/``, in the order wanted.

    Returns
    -------
    AnnData
        The cells of all, with the genes that all measure (what a panel lacks is unknown and not zero), the columns of
        ``obs`` that all have, centroids, cell graphs without edges between slides, and the co-localised gene pairs of
        these genes. Names of cells that are not unique begin with their slide. Statistics of one slide
        (``uns["colocalization_enrichment"]``) are left out.

    Raises
    ------
    InputError
        If there is no file, one is no slide table, two are of one slide, or the slides share no gene.

    Examples
    --------
    ::

        table = one_table(sorted(Path("build/slides").glob("*.h5ad")))
        table.write_h5ad("slides.h5ad")
    """
    if not files:
        raise InputError("there is no slide table to put together.")
    slides = [read_table(Path(file)) for file in files]
    for slide, file in zip(slides, files, strict=True):
        if SLIDE not in slide.obs or SPATIAL not in slide.obsm:
            raise InputError(f"{file} is no slide table: it lacks obs[{SLIDE!r}] or obsm[{SPATIAL!r}].")
    names = [set(slide.obs[SLIDE].astype(str)) for slide in slides]
    for number, (name, file) in enumerate(zip(names, files, strict=True)):
        if any(name & other for other in names[:number]):
            raise InputError(f"{file} is of a slide that another table has too: {', '.join(sorted(name))}.")
    shared = genes_in_all(slides, [str(file) for file in files])
    parts = [_part(shared.of(slide, number)) for number, slide in enumerate(slides)]
    if len(set().union(*(part.obs_names for part in parts))) < sum(part.n_obs for part in parts):
        for part in parts:
            part.obs_names = part.obs[SLIDE].astype(str) + "-" + part.obs_names
    table = ad.concat(parts, join="inner", merge="same", pairwise=True)
    for column in set.intersection(*(set(part.obs.columns) for part in parts)):
        if all(isinstance(part.obs[column].dtype, pd.CategoricalDtype) for part in parts):
            table.obs[column] = pd.Categorical(table.obs[column])
    if all(COLOCALIZATION in slide.obsm for slide in slides):
        _join_gene_pairs(table, slides, shared)
    return table


def _part(slide: ad.AnnData) -> ad.AnnData:
    """Return what of a slide can stand beside others."""
    part = ad.AnnData(slide.X, obs=slide.obs, var=slide.var, obsm={SPATIAL: slide.obsm[SPATIAL]})
    for key in _GRAPH:
        if key in slide.obsp:
            part.obsp[key] = slide.obsp[key]
    return part


def _join_gene_pairs(table: ad.AnnData, slides: list[ad.AnnData], shared: SharedGenes) -> None:
    """Write co-localised gene pairs of all slides, a column for each pair that some slide has."""
    column: dict[tuple[str, str], int] = {}
    parts = []
    for slide, columns in zip(slides, shared.columns, strict=True):
        called = {gene: shared.names[of] for gene, of in zip(slide.var_names, columns, strict=True) if of >= 0}
        named = slide.uns[COLOCALIZATION]["pairs"][["gene_a", "gene_b"]].astype(str).to_numpy().tolist()
        pairs = [(called.get(a, ""), called.get(b, "")) for a, b in named]
        kept = [place for place, (a, b) in enumerate(pairs) if a and b]
        to = np.array([column.setdefault((min(pairs[p]), max(pairs[p])), len(column)) for p in kept], dtype=np.int32)
        matrix = sparse.coo_matrix(slide.obsm[COLOCALIZATION][:, kept])
        parts.append((matrix, to))
    blocks = [
        sparse.csr_matrix((matrix.data, (matrix.row, to[matrix.col])), shape=(matrix.shape[0], len(column)))
        for matrix, to in parts
    ]
    table.obsm[COLOCALIZATION] = sparse.csr_matrix(sparse.vstack(blocks))
    methods = {str(slide.uns[COLOCALIZATION]["method"]) for slide in slides}
    table.uns[COLOCALIZATION] = {
        "method": methods.pop() if len(methods) == 1 else "mixed",
        "parameters": {},
        "pairs": pd.DataFrame(list(column), columns=["gene_a", "gene_b"], dtype=object),
    }
