"""Make the corpus of the starter model from tables of cells of one breast section, split by coordinates.

Cells of the public 10x Genomics data set "Xenium FFPE Human Breast Cancer, Rep 1" (CC BY 4.0), in one um frame:

- cell tables ``region_a``, ``region_b``, ``region_c`` (each a part of the section, about a third of its cells) and
  ``dense_window`` (every cell of a window), as parquet with 313 gene columns and the centroid in ``x_um, y_um`` or
  ``x_centroid, y_centroid``;
- a window with transcripts, for which genes of a cell are co-localised.

    python benchmarks/starter_data.py CELLS_FOLDER WINDOW_FOLDER --out OUT [--development]

Held out for good are the dense window beyond y = 4500, region_b beyond x = 6500 and the rectangle of the SpatialData
example of the same section. A cell of any table within 150 um of a held-out cell is in neither part, so that tables may
overlap. ``--development`` leaves out what is held out, and takes two strips inside the training part for validation,
with the same gap, on which recipes were compared (``starter.md`` says which).
"""

import argparse
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_data import bin_transcripts, colocalize, leave_uncolocalized, read_transcripts, write_corpus

GAP = 150.0
MIN_TRANSCRIPTS = 30
TABLES = {
    "dense_window": ("x_um", "y_um"),
    "region_a": ("x_centroid", "y_centroid"),
    "region_b": ("x_centroid", "y_centroid"),
    "region_c": ("x_centroid", "y_centroid"),
}
NOT_GENES = {"cell_id", "area", "cell_area", "nucleus_area", *TABLES["dense_window"], *TABLES["region_a"]}
CONTEXT = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}
EXAMPLE = (1520.0, 1711.0, 2750.0, 2912.0)  # x and y of the SpatialData example, um
HELD_OUT = {"dense_window": (1, 4500.0), "region_b": (0, 6500.0)}  # axis, and the coordinate beyond which
DEVELOPMENT = {"dense_window": (1, 3950.0), "region_b": (0, 5850.0)}


def read_table(path: Path, name: str) -> anndata.AnnData:
    """Read a table of cells, without those of few transcripts."""
    table = pd.read_parquet(path)
    genes = [column for column in table.columns if column not in NOT_GENES]
    counts = sparse.csr_matrix(table[genes].to_numpy(dtype=np.int32))
    adata = anndata.AnnData(
        counts,
        obs=pd.DataFrame({"slide": name, **CONTEXT}, index=[f"{name}-{number}" for number in range(len(table))]),
        var=pd.DataFrame(index=genes),
    )
    adata.obsm["spatial"] = table[list(TABLES[name])].to_numpy(dtype=np.float64)
    leave_uncolocalized(adata)
    return adata[np.asarray(counts.sum(axis=1)).ravel() >= MIN_TRANSCRIPTS].copy()


def read_window(folder: Path) -> anndata.AnnData:
    """Read the window with transcripts, and find the co-localised genes of its cells."""
    transcripts = read_transcripts(folder, platform="xenium")
    adata = bin_transcripts(transcripts, min_transcripts=MIN_TRANSCRIPTS, slide="transcripts_window", **CONTEXT)
    colocalize(adata, transcripts)
    return adata


def distance_to_example(points: np.ndarray) -> np.ndarray:
    """Return how far points are from the rectangle of the SpatialData example, 0 inside."""
    x_low, x_high, y_low, y_high = EXAMPLE
    x, y = points.T
    return np.hypot(np.clip(x_low - x, 0, None) + np.clip(x - x_high, 0, None),
                    np.clip(y_low - y, 0, None) + np.clip(y - y_high, 0, None))  # fmt: skip


def _hold_out(slides: dict[str, anndata.AnnData], beyond: dict[str, tuple[int, float]], label: str) -> None:
    """Label the cells beyond a line of some tables, and the cells of all tables that are too close to them."""
    for name, (axis, start) in beyond.items():
        adata = slides[name]
        far = (adata.obsm["spatial"][:, axis] > start) & (adata.obs["split"] == "train")
        adata.obs.loc[far, "split"] = label
    points = np.concatenate([adata.obsm["spatial"][adata.obs["split"] == label] for adata in slides.values()])
    tree = cKDTree(points)
    for adata in slides.values():
        near = (tree.query(adata.obsm["spatial"])[0] <= GAP) & (adata.obs["split"] == "train").to_numpy()
        adata.obs.loc[near, "split"] = "gap"


def split(slides: dict[str, anndata.AnnData], *, development: bool) -> None:
    """Write ``obs["split"]``: train, validation or gap, by coordinates across all tables.

    What is held out for good is the validation part, and in development nowhere.
    """
    for adata in slides.values():
        adata.obs["split"] = np.where(distance_to_example(adata.obsm["spatial"]) <= GAP, "gap", "train")
    _hold_out(slides, HELD_OUT, "gap" if development else "validation")
    if development:
        # The gap around what is held out for good, whose cells are labelled gap already, is found as in the end.
        held = np.concatenate(
            [slides[name].obsm["spatial"][slides[name].obsm["spatial"][:, axis] > start]
             for name, (axis, start) in HELD_OUT.items()]
        )  # fmt: skip
        tree = cKDTree(held)
        for adata in slides.values():
            adata.obs.loc[tree.query(adata.obsm["spatial"])[0] <= GAP, "split"] = "gap"
        _hold_out(slides, DEVELOPMENT, "validation")
    trained = np.concatenate([a.obsm["spatial"][a.obs["split"] == "train"] for a in slides.values()])
    judged = np.concatenate([a.obsm["spatial"][a.obs["split"] == "validation"] for a in slides.values()])
    assert cKDTree(trained).query(judged)[0].min() > GAP, "a training cell is too close to a held-out one"
    assert distance_to_example(trained).min() > GAP, "a training cell is too close to the SpatialData example"


def main() -> None:
    """Make the slides and the corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path, help="folder of the four tables of cells")
    parser.add_argument("window", type=Path, help="folder with the transcripts of the window")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--development", action="store_true", help="validate inside the training part")
    options = parser.parse_args()
    slides = {name: read_table(options.cells / f"{name}.parquet", name) for name in TABLES}
    window = read_window(options.window)
    genes = slides["dense_window"].var_names
    assert set(window.var_names) <= set(genes), "the window has genes that the tables have not"
    slides["transcripts_window"] = window
    split(slides, development=options.development)
    for name, adata in slides.items():
        print(f"{name:20} {adata.obs['split'].value_counts().to_dict()}")
        adata.obs["split"] = adata.obs["split"].astype("category")
        (options.out / "slides").mkdir(parents=True, exist_ok=True)
        adata.write_h5ad(options.out / "slides" / f"{name}.h5ad")
    corpus = write_corpus(list(slides.values()), options.out / "corpus")
    for part in ("train", "validation"):
        refs = corpus.block_refs(part)
        print(f"{part}: {sum(ref.n_owned for ref in refs)} cells, {sum(ref.n_pairs for ref in refs)} pairs")


if __name__ == "__main__":
    main()
