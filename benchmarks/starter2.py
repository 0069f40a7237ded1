"""Fit starter 2 to the slides that ``starter2_data.py`` wrote.

    python benchmarks/starter2.py SLIDES_FOLDER --out MODEL [--development] [--gene-ids features.tsv.gz]

``--development`` fits the part "train" alone, which is the model that the figures of the card are of; without it every
cell is fitted. One thread; the SHA-256 of the weights is printed. ``--gene-ids`` is a table of a 10x reference (Ensembl
id, symbol), from which genes get their ids.
"""

import argparse
import hashlib
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from spaf_model import NetworkConfig, TissueConfig, TissueModel
from spaf_model.tissue import PearsonResiduals

N_GENES = 6_000
XENIUM = ("dense_window", "region_a", "region_b", "region_c", "window")
# Of the variance that components are taken of. By cells alone, spots of 6,000 genes would leave little to a panel of
# 313, which has ten times the cells.
SHARES = {"xenium": 0.3, "spots": 0.6, "cells": 0.1}
LEAST_CELLS = 50
RECIPE = TissueConfig(
    n_components=200,
    n_place=60,
    n_identity=50,
    size_by_slide=True,
    network=NetworkConfig(widths=(256, 128), steps=1_000, dropout=0.2),
)


def kind_of(name: str) -> str:
    """Return what a slide is of: xenium, spots or cells (without places)."""
    return "xenium" if name in XENIUM else "cells" if name == "scrna" else "spots"


def read_slides(folder: Path, parts: tuple[str, ...] | None) -> dict[str, anndata.AnnData]:
    """Read the slides of a folder, some parts of them or all; those of few cells are left out."""
    slides = {}
    for path in sorted(folder.glob("*.h5ad")):
        slide = anndata.read_h5ad(path)
        kept = slide if parts is None else slide[slide.obs["part"].isin(parts).to_numpy()]
        if kept.n_obs >= LEAST_CELLS:
            slides[path.stem] = kept.copy()
    return slides


def choose_genes(slides: dict[str, anndata.AnnData], known: list[set[str]], n_genes: int = N_GENES) -> list[str]:
    """Return the genes of the panel, and of the others those of most variance in some or all transcriptomes.

    Parameters
    ----------
    slides
        That are fitted.
    known
        Genes of each kind of transcriptome at hand; others than those in at least three of them are left out.
    n_genes
        Wanted.
    """
    panel = next(list(slide.var_names) for name, slide in slides.items() if kind_of(name) == "xenium")
    ranks: dict[str, dict[str, list[float]]] = {}
    for name, slide in slides.items():
        if kind_of(name) == "xenium":
            continue
        counts = sparse.csr_array(slide.X).astype(np.float32)
        residuals = PearsonResiduals(counts)
        columns = np.arange(slide.n_vars) if residuals.columns is None else residuals.columns
        variance = np.zeros(slide.n_vars)
        variance[columns] = sum(np.square(chunk, dtype=np.float64).sum(axis=0) for _, chunk in residuals.chunks())
        variance = np.minimum(variance, np.quantile(variance, 0.999))
        rank = variance.argsort(kind="stable").argsort(kind="stable") / slide.n_vars
        for gene, value in zip(slide.var_names, rank, strict=True):
            ranks.setdefault(gene, {}).setdefault(name.split("_")[0], []).append(float(value))
    scores = {}
    for gene, by_source in ranks.items():
        means = [float(np.mean(values)) for values in by_source.values()]
        if sum(gene in genes for genes in known) >= 3 and gene not in panel:
            scores[gene] = float(np.mean(means)) + 0.5 * max(means)
    return [*panel, *sorted(scores, key=lambda gene: (-scores[gene], gene))[: n_genes - len(panel)]]


def on_genes(slide: anndata.AnnData, genes: list[str], ids: dict[str, str]) -> anndata.AnnData:
    """Return the genes of a slide that are wanted, with their ids."""
    kept = slide[:, [gene for gene in genes if gene in slide.var_names]].copy()
    kept.var = pd.DataFrame({"gene_ids": [ids.get(gene, "") for gene in kept.var_names]}, index=kept.var_names)
    if kind_of(slide.obs["slide"].iloc[0]) == "cells":
        kept.obsm.clear()
    elif "spatial" in kept.obsm:
        kept.obsm["spatial"] = np.asarray(kept.obsm["spatial"], dtype=np.float64)[:, :2]
    return kept


def shares_of(slides: dict[str, anndata.AnnData]) -> dict[str, float]:
    """Return the share of each slide: that of its kind, divided by cells."""
    cells = {kind: sum(s.n_obs for name, s in slides.items() if kind_of(name) == kind) for kind in SHARES}
    return {name: SHARES[kind_of(name)] * slide.n_obs / cells[kind_of(name)] for name, slide in slides.items()}


def read_ids(path: Path | None) -> dict[str, str]:
    """Return the Ensembl id of each symbol that has one alone."""
    if path is None:
        return {}
    table = pd.read_csv(path, sep="\t", header=None, usecols=[0, 1], names=["id", "symbol"])
    table = table[~table["symbol"].duplicated(keep=False)]
    return dict(zip(table["symbol"], table["id"], strict=True))


def fit(folder: Path, parts: tuple[str, ...] | None, ids: dict[str, str]) -> TissueModel:
    """Fit the recipe to some parts of the slides of a folder."""
    slides = read_slides(folder, parts)
    known: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.h5ad")):
        if kind_of(path.stem) != "xenium":
            known[path.stem.split("_")[0]] = set(anndata.read_h5ad(path, backed="r").var_names)
    genes = choose_genes(slides, list(known.values()))
    # The panel comes first, so that a vocabulary that is read off the slides in turn begins with it.
    order = sorted(slides, key=lambda name: (kind_of(name) != "xenium", name))
    tables = [on_genes(slides[name], genes, ids) for name in order]
    return TissueModel.fit(
        tables, config=RECIPE, slide_key="slide", shares=shares_of(slides), n_threads=1, progress=True
    )


def main() -> None:
    """Fit, write and print the digest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--gene-ids", type=Path)
    options = parser.parse_args()
    started, spent = time.perf_counter(), time.process_time()
    model = fit(options.slides, ("train",) if options.development else None, read_ids(options.gene_ids))
    model.save_pretrained(options.out, half=True)
    digest = hashlib.sha256((options.out / "model.safetensors").read_bytes()).hexdigest()
    size = sum(file.stat().st_size for file in options.out.iterdir())
    print(
        f"{time.perf_counter() - started:.0f} s, {time.process_time() - spent:.0f} s of one core, {size / 1e6:.1f} MB"
    )
    print(f"{model!r}\nmodel.safetensors, SHA-256: {digest}")


if __name__ == "__main__":
    main()
