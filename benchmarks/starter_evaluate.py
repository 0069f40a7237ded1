"""Judge the starter model on tissue that it has not seen, beside baselines.

    python benchmarks/starter_evaluate.py BUILT MODEL [--example SPATIALDATA] [--lung FOLDER] [--write]

BUILT is what ``starter_data.py`` made. Everything is judged by ``spaf_train.evaluation``, the code behind ``spaf-train
evaluate``: cell pairs at 10 to 50 um, masked genes and, where there are transcripts, co-localised genes; baselines are
fitted on the training part of BUILT alone. The parts:

- ``held out``: the held-out cells of all tables of BUILT, and each table's alone;
- ``example``: the SpatialData example of the same section, whose place is held out too. It has transcripts;
- ``lung``: a window of lung, another tissue and panel. Only genes of both panels are kept, in the baselines as well.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch
from _machine import describe, write_results
from scipy import sparse

from spaf_data import Corpus, bin_transcripts, colocalize, read_transcripts, write_corpus
from spaf_model import SpatialFormer
from spaf_train._record import plain
from spaf_train.evaluation import Evaluation, EvaluationOptions, evaluate

MIN_TRANSCRIPTS = 30
BREAST = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}
LUNG = {"tissue": "Lung", "condition": "Healthy", "species": "Human", "assay": "Xenium"}
# For the whole. For its parts and the windows, baselines are fitted on a third of the training cells: minutes less.
OPTIONS = EvaluationOptions(max_cells=100_000, max_fitted_cells=100_000, max_pairs=6_000, n_replicates=500)
PART_OPTIONS = dataclasses.replace(OPTIONS, max_fitted_cells=12_000)


def read_window(path: Path, name: str, context: dict[str, str]) -> ad.AnnData:
    """Read a slide with transcripts; all its cells are to be judged."""
    transcripts = read_transcripts(path)
    adata = bin_transcripts(transcripts, min_transcripts=MIN_TRANSCRIPTS, slide=name, **context)
    colocalize(adata, transcripts)
    adata.obs["split"] = "validation"
    return adata


def with_genes(adata: ad.AnnData, genes: list[str]) -> ad.AnnData:
    """Return a slide with these genes in this order: 0 where it has none, and without co-localised pairs of others."""
    place = adata.var_names.get_indexer(genes)
    known = np.flatnonzero(place >= 0)
    columns = sparse.csr_matrix((np.ones(known.size, int), (place[known], known)), shape=(adata.n_vars, len(genes)))
    result = ad.AnnData(
        sparse.csr_matrix(adata.X).astype(np.int32) @ columns.astype(np.int32),
        obs=adata.obs.copy(),
        obsm=dict(adata.obsm),
    )
    result.var_names = genes
    told = dict(adata.uns["colocalization"])
    pairs = told["pairs"]
    kept = np.flatnonzero(pairs["gene_a"].isin(genes) & pairs["gene_b"].isin(genes))
    result.obsm["colocalization"] = sparse.csr_matrix(adata.obsm["colocalization"])[:, kept]
    result.uns["colocalization"] = told | {"pairs": pairs.iloc[kept].reset_index(drop=True)}
    return result


def summary(part: str, result: Evaluation) -> dict[str, Any]:
    """Return what is kept of an evaluation, and print its main figures."""
    content = result.as_dict()
    kept = {key: content[key] for key in ("n_cells", "n_fitted_cells", "masked_genes", "colocalization", "cell_pairs")}
    print(f"\n== {part}: {result.n_cells} cells")
    print(result.masked_genes.round(3).to_string(index=False))
    if result.gene_pairs is not None:
        print(f"co-localised: {result.colocalized_share:.3f} of the pairs")
        print(result.gene_pairs.round(3).to_string(index=False))
    if result.cell_pairs is not None:
        judged = result.cell_pairs.evaluation
        print(f"{judged.tiles.n} tiles of {judged.tiles.side:.0f} um")
        for table in (judged.scores, judged.differences):
            print(table[table.radius == 30.0].round(3).to_string(index=False), flush=True)
    return {"part": part, **plain(kept)}


def main() -> None:
    """Judge, print tables, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("built", type=Path, help="what starter_data.py made")
    parser.add_argument("model", help="a model directory, or starter-1")
    parser.add_argument("--example", type=Path, help="the SpatialData example of the same section")
    parser.add_argument("--lung", type=Path, help="folder of a Xenium run of lung")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/starter.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = SpatialFormer.from_pretrained(options.model)
    built = Corpus(options.built / "corpus")
    slides = {path.stem: ad.read_h5ad(path) for path in sorted((options.built / "slides").glob("*.h5ad"))}
    whole = evaluate(model, built, options=OPTIONS)
    cases = [summary("held out", whole)]
    # Asked of the model alone, so the baselines, which read no context, are fitted on few cells.
    few = dataclasses.replace(OPTIONS, max_fitted_cells=2_000)
    unknown = evaluate(model, built, options=few, context=dict.fromkeys(BREAST, "unknown"))
    cases.append(summary("held out, context unknown", unknown))

    with tempfile.TemporaryDirectory() as folder:

        def judge(part: str, slide: ad.AnnData, fit_on: Corpus) -> None:
            corpus = write_corpus([slide], Path(folder) / part)
            cases.append(summary(part, evaluate(model, corpus, fit_on=fit_on, options=PART_OPTIONS)))

        for name, slide in slides.items():
            held = slide[slide.obs["split"].to_numpy() == "validation"]
            if held.n_obs:
                judge(name, held.copy(), built)
        if options.example:
            judge("example", with_genes(read_window(options.example, "example", BREAST), built.genes), built)
        if options.lung:
            lung = read_window(options.lung, "lung", LUNG)
            shared = [gene for gene in built.genes if gene in set(lung.var_names)]
            print(f"\nlung: {len(shared)} of {lung.n_vars} genes are among the {len(built.genes)} of the model")
            fitted = [with_genes(slide, shared) for slide in slides.values()]
            judge("lung", with_genes(lung, shared), write_corpus(fitted, Path(folder) / "fitted"))
            cases[-1] |= {"genes": lung.n_vars, "shared_genes": len(shared)}
    if options.write:
        machine = describe("spaf-model", "spaf-train", "torch")
        write_results("starter", {"machine": machine, "cases": cases, "n_parameters": model.n_parameters})


if __name__ == "__main__":
    main()
