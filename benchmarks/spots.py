"""Make the corpus of the second starter model, `spots`: human breast by several technologies, and train it.

    python benchmarks/spots.py CELLS_FOLDER SLIDES_FOLDER --out OUT [--genes 1000] [--set SECTION.OPTION=VALUE ...]

Read are, with the licences of those who published them:

- of CELLS_FOLDER the table ``region_a`` of Xenium cells (10x Genomics, "Xenium FFPE Human Breast Cancer, Rep 1", CC BY
  4.0), as parquet with 313 gene columns and ``x_centroid, y_centroid`` in um;
- of SLIDES_FOLDER ``her2st_patients_ABCD.h5ad`` (Spatial Transcriptomics of four patients, ``obs`` with ``patient`` and
  ``section``), ``breast_visium_registered_left.h5ad`` (Visium) and ``breast_scrna_wu2021.h5ad`` (dissociated cells,
  which have no neighbours: they are laid ten millimetres apart).

Held out are patient D whole, and the end of the Xenium region and of the Visium slide (behind a gap of `GAP`); nothing
of the dissociated cells. The genes are those of the panel and, of the rest, those with most counts in spots. The model
is trained by the preset ``scgpt_spatial``, with the options below.
"""

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from spaf_data import write_corpus
from spaf_train import pretrain, read_config

GAP = 300.0  # um, between what is trained on and what is held out of the same slide: as far as a neighbourhood reaches
APART = 10_000.0  # um, between dissociated cells
MIN_COUNTS = {"Xenium": 30, "ST": 200, "Visium": 500, "scRNA": 200}
HELD_OUT = {"region_a": 0.8, "visium": 0.7}  # the share in x that is trained on
TEST_PATIENT = "D"
NOT_GENES = {"cell_id", "area", "x_centroid", "y_centroid"}
# Two layers and 128 tokens, and windows of 360, so that most sections of spots are one window and the mean state of a
# window is that of its slide. Hidden values would double the work, and are left out: eight epochs are half an hour of
# a part of one core.
OPTIONS = [
    "model.n_layers=2",
    "model.max_length=129",
    "model.neighbour_mix=learnt",
    "model.dropout=0.05",
    "objectives.masked_values.enabled=false",
    "sampling.windows.within=1000",
    "sampling.windows.cells=360",
    "sampling.windows.tokens=0",
    "sampling.token_budget=16384",
    "sampling.batches_per_step=1",
    "optimizer.learning_rate=2e-3",
    "optimizer.warmup_steps=15",
    "run.steps=120",
    "run.log_every=5",
    "run.validate_every=120",
    "run.validation_inputs=1200",
    "run.checkpoint_every=25",
    "run.best_metric=last",
]


def read_slides(cells: Path, slides: Path) -> dict[str, ad.AnnData]:
    """Read all slides by name, each with the split of its cells."""
    found = {}
    table = pd.read_parquet(cells / "region_a.parquet")
    genes = [column for column in table.columns if column not in NOT_GENES]
    places = table[["x_centroid", "y_centroid"]].to_numpy(dtype=np.float64)
    found["region_a"] = make_slide(table[genes].to_numpy(dtype=np.int32), genes, places, "region_a", "Xenium")
    spots = ad.read_h5ad(slides / "her2st_patients_ABCD.h5ad")
    for section in sorted(spots.obs["section"].unique()):
        own = (spots.obs["section"] == section).to_numpy()
        name = f"her2_{section}"
        found[name] = make_slide(spots.X[own], spots.var_names, spots.obsm["spatial"][own], name, "ST")
        found[name].obs["split"] = "validation" if section.startswith(TEST_PATIENT) else "train"
    visium = ad.read_h5ad(slides / "breast_visium_registered_left.h5ad")
    found["visium"] = make_slide(visium.X, visium.var_names, visium.obsm["spatial"], "visium", "Visium")
    single = ad.read_h5ad(slides / "breast_scrna_wu2021.h5ad")
    places = np.arange(single.n_obs)[:, None] * np.array([[APART, 0.0]])
    found["dissociated"] = make_slide(single.X, single.var_names, places, "dissociated", "scRNA")
    for name, share in HELD_OUT.items():
        x = found[name].obsm["spatial"][:, 0]
        line = np.quantile(x, share)
        found[name].obs["split"] = np.where(x < line - GAP, "train", np.where(x > line, "validation", "gap"))
    return found


def make_slide(counts: object, genes: object, places: np.ndarray, name: str, assay: str) -> ad.AnnData:
    """Return the cells of a slide that have enough counts; their names end in their place in the source."""
    adata = ad.AnnData(sparse.csr_matrix(counts).astype(np.int32), var=pd.DataFrame(index=list(genes)))
    adata.obs_names = [f"{name}-{number}" for number in range(adata.n_obs)]
    context = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": assay}
    for column, value in {"slide": name, "split": "train", **context}.items():
        adata.obs[column] = value
    adata.obsm["spatial"] = np.asarray(places, dtype=np.float64)
    return adata[np.asarray(adata.X.sum(axis=1)).ravel() >= MIN_COUNTS[assay]].copy()


def choose_genes(slides: dict[str, ad.AnnData], n_genes: int) -> list[str]:
    """Return the genes of the panel, and those of spots with most counts in training (each slide counts alike)."""
    panel = list(slides["region_a"].var_names)
    shares = pd.Series(dtype=float)
    for adata in slides.values():
        if adata.obs["assay"].iloc[0] in ("ST", "Visium"):
            own = adata[adata.obs["split"] == "train"]
            if own.n_obs:
                sums = pd.Series(np.asarray(own.X.sum(axis=0)).ravel(), index=adata.var_names)
                shares = shares.add(sums / sums.sum(), fill_value=0.0)
    others = [gene for gene in shares.sort_values(ascending=False, kind="stable").index if gene not in set(panel)]
    return panel + others[: max(n_genes - len(panel), 0)]


def main() -> None:
    """Make the corpus, and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path, help="folder of the tables of Xenium cells")
    parser.add_argument("slides", type=Path, help="folder of the spots and the dissociated cells")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--data-only", action="store_true")
    parser.add_argument("--run", default="run", help="name of the folder of the run, in OUT")
    parser.add_argument("--set", dest="options", action="append", default=[], metavar="SECTION.OPTION=VALUE")
    options = parser.parse_args()
    if not (options.out / "corpus").exists():
        slides = read_slides(options.cells, options.slides)
        genes = set(choose_genes(slides, options.genes))
        kept = [adata[:, [gene for gene in adata.var_names if gene in genes]].copy() for adata in slides.values()]
        # A section of spots is one block, so that all its neighbours are there.
        write_corpus(kept, options.out / "corpus", positive_radius=120.0, block_cells=2500, colocalization_key=None)
    if not options.data_only:
        config = read_config("scgpt_spatial", overrides=[*OPTIONS, *options.options])
        result = pretrain(config, options.out / "corpus", options.out / options.run, resume=True)
        print(result.best)


if __name__ == "__main__":
    main()
