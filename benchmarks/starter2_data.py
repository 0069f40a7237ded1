"""Read every source of starter 2 as slides of raw counts, split by coordinates, patients and cells.

    python benchmarks/starter2_data.py CELLS_FOLDER WINDOW_FOLDER SPOTS_FOLDER --out OUT

- CELLS_FOLDER: cell tables of "Xenium FFPE Human Breast Cancer, Rep 1" (10x Genomics, CC BY 4.0), as for
  `starter_data.py`: ``region_a``, ``region_b``, ``region_c``, ``dense_window``;
- WINDOW_FOLDER: a window of that section with transcripts, and ``reference_profiles.csv``, by which its cells get weak
  labels;
- SPOTS_FOLDER: h5ad of raw counts with ``obsm["spatial"]``: ``her2st_patients_ABCD`` (Andersson et al. 2021, ST, 16
  sections of 4 patients), ``breast_layers_st_4slices`` (Stahl et al. 2016, ST), ``breast_visium_registered_left``
  (10x Genomics, Visium CytAssist, a part of the section beside the Xenium one), ``breast_scrna_wu2021`` (Wu et al.
  2021, one donor; no places).

Every slide gets ``obs["part"]``: "train"; "choice", on which recipes were compared; "held", on which the card's figures
were made; "gap", which is neither. All Xenium tables are one section in one frame, so their parts are rectangles of it,
whatever the table, with 150 um between what is trained on and what is judged. Patient C of the ST sections is for
choice; D is held, and so is Visium, which covers the same tissue as the dense window. The shipped model is fitted on
all parts.
"""

import argparse
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from starter_data import CONTEXT, TABLES, read_table

from spaf_data import bin_transcripts, read_transcripts

GAP = 150.0
MIN_COUNTS = 30
SPACING = 200.0  # um between spots of ST, whose places are noted on their grid
ALL = 1e9
# Rectangles of the section in um: x from, x to, y from, y to.
HELD = {
    "dense": (2368.0, 4600.0, 4500.0, ALL),
    "region b": (6500.0, ALL, -ALL, ALL),
    "window": (900.0, 1750.0, -ALL, 850.0),
}
CHOICE = {"dense": (2368.0, 4600.0, 2400.0, 2600.0), "region b": (4000.0, 4900.0, -ALL, ALL)}
PATIENTS = {"C": "choice", "D": "held"}

Places = NDArray[np.float64]


def inside(places: Places, box: tuple[float, float, float, float], margin: float = 0.0) -> NDArray[np.bool_]:
    """Return which places are in a rectangle, or within a margin of it."""
    x_low, x_high, y_low, y_high = box
    x, y = places.T
    away = np.hypot(
        np.maximum(x_low - x, 0) + np.maximum(x - x_high, 0), np.maximum(y_low - y, 0) + np.maximum(y - y_high, 0)
    )
    return away <= margin


def parts_of(places: Places) -> NDArray[np.str_]:
    """Return the part of each place of the section."""
    part = np.full(len(places), "train", dtype="<U6")
    for boxes in (HELD, CHOICE):
        for box in boxes.values():
            part[inside(places, box, GAP)] = "gap"
    for name, boxes in (("choice", CHOICE), ("held", HELD)):
        for box in boxes.values():
            part[inside(places, box)] = name
    return part


def read_cells(folder: Path) -> list[anndata.AnnData]:
    """Read the cell tables of the section."""
    slides = []
    for name in TABLES:
        slide = read_table(folder / f"{name}.parquet", name)
        slide.obsm.pop("colocalization", None)
        slide.obs["part"] = parts_of(slide.obsm["spatial"])
        slides.append(slide)
    return slides


def read_window(folder: Path) -> anndata.AnnData:
    """Read the window with transcripts, with weak labels by the reference profiles."""
    slide = bin_transcripts(
        read_transcripts(folder, platform="xenium"), min_transcripts=MIN_COUNTS, slide="window", **CONTEXT
    )
    slide.obs["part"] = parts_of(slide.obsm["spatial"][:, :2])
    slide.obs["label"] = weak_labels(slide, pd.read_csv(folder / "reference_profiles.csv"))
    return slide


def weak_labels(slide: anndata.AnnData, reference: pd.DataFrame) -> NDArray[np.object_]:
    """Return for each cell the type of the reference profile that its standardised log counts are most like."""
    genes = [gene for gene in slide.var_names if gene in reference.columns]
    kinds = reference["cell_type"].astype(str).to_numpy()
    counts = sparse.csr_matrix(slide[:, genes].X).toarray().astype(np.float64)
    totals = counts.sum(axis=1, keepdims=True).clip(1)
    cells = np.log1p(counts / totals * np.median(totals))
    profiles = np.log1p(reference[genes].to_numpy(np.float64) * 1e4)
    cells, profiles = ((each - each.mean(axis=0)) / (each.std(axis=0) + 1e-6) for each in (cells, profiles))
    return kinds[np.corrcoef(cells, profiles)[: len(cells), len(cells) :].argmax(axis=1)].astype(object)


def read_spots(folder: Path) -> list[anndata.AnnData]:
    """Read the sections of spots, and the cells without places."""
    slides = []
    her2 = anndata.read_h5ad(folder / "her2st_patients_ABCD.h5ad")
    for section, rows in her2.obs.groupby("section", observed=True).indices.items():
        slide = her2[rows].copy()
        slide.obsm["spatial"] = slide.obs[["array_x", "array_y"]].to_numpy(np.float64) * SPACING
        slides.append(_slide(slide, f"her2_{section}", PATIENTS.get(str(section)[0], "train")))
    layers = anndata.read_h5ad(folder / "breast_layers_st_4slices.h5ad")
    for section, rows in layers.obs.groupby("slice", observed=True).indices.items():
        slides.append(_slide(layers[rows].copy(), f"layers_{section}", "train"))
    visium = anndata.read_h5ad(folder / "breast_visium_registered_left.h5ad")
    slides.append(_slide(visium, "visium", "held"))
    cells = anndata.read_h5ad(folder / "breast_scrna_wu2021.h5ad")
    cells.obs["label"] = cells.obs["celltype_minor"].astype(str)
    slides.append(_slide(cells, "scrna", "train"))
    slides[-1].obs["part"] = np.random.default_rng(0).choice(
        ["train", "choice", "held"], size=cells.n_obs, p=[0.5, 0.2, 0.3]
    )
    return slides


def _slide(slide: anndata.AnnData, name: str, part: str) -> anndata.AnnData:
    """Return spots or cells with counts, named."""
    slide.obs["slide"], slide.obs["part"] = name, part
    slide.obs_names = [f"{name}-{cell}" for cell in slide.obs_names]
    slide.obs["label"] = slide.obs["label"].astype(str) if "label" in slide.obs else "unlabelled"
    slide.X = sparse.csr_matrix(slide.X)
    return slide[np.asarray(slide.X.sum(axis=1)).ravel() >= MIN_COUNTS].copy()


def main() -> None:
    """Write a folder of slides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path)
    parser.add_argument("window", type=Path)
    parser.add_argument("spots", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for slide in [*read_cells(options.cells), read_window(options.window), *read_spots(options.spots)]:
        kept = [column for column in ("slide", "part", "label") if column in slide.obs]
        slide.obs = slide.obs[kept].astype(str)
        slide.uns.clear()
        slide.write_h5ad(options.out / f"{slide.obs['slide'].iloc[0]}.h5ad")
        print(
            f"{slide.obs['slide'].iloc[0]:14}{slide.n_obs:7,} x {slide.n_vars:6,}",
            dict(slide.obs["part"].value_counts()),
        )


if __name__ == "__main__":
    main()
