"""The command line ``spaf-analysis``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from spaf_analysis.annotate.command import annotate_command
from spaf_analysis.attention.command import attention_command
from spaf_analysis.benchmark.command import benchmark_command
from spaf_analysis.cell_pairs.command import cell_pairs_command
from spaf_analysis.clusters.command import clusters_command
from spaf_analysis.commands import print_json, recorded
from spaf_analysis.deconvolution.command import deconvolve_command
from spaf_analysis.defaults import MAX_PAIRS, N_REPLICATES
from spaf_analysis.errors import InputError
from spaf_analysis.gene_pairs.command import gene_pairs_command
from spaf_analysis.imputation.command import impute_command
from spaf_analysis.integrate.command import integrate_command
from spaf_analysis.keys import EMBEDDING
from spaf_analysis.ligrec.command import ligrec_command
from spaf_analysis.niches.command import niches_command
from spaf_analysis.patterns.command import patterns_command
from spaf_analysis.perturbation.command import perturb_command
from spaf_analysis.spatial_genes.command import spatial_genes_command
from spaf_analysis.type_pairs.command import type_pairs_command

app = typer.Typer(
    help="From a spatial run to embeddings and a report that can be read.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_JSON = typer.Option("--json", help="Print the key numbers as JSON.")
_GENE = typer.Option(help="Gene on the tissue map; default: the one with the strongest spatial pattern.")
_RESOLUTION = typer.Option(help="Resolution of the clusters; higher gives more.")
_N_DOMAINS = typer.Option(help="Number of niches; default: the one that halves of the tissue agree on.")
_SEED = typer.Option(help="Seed of clusters, UMAP, pairs and intervals.", min=0)


def main() -> None:
    """Run the command line; what a user can cause becomes one line on stderr and exit code 2."""
    # Figures go into files. The backend of a notebook that a command is started from may not be importable here.
    os.environ["MPLBACKEND"] = "agg"
    try:
        app()
    except ValueError as error:
        # The packages below have an InputError of their own; they are imported by now if it is one of theirs.
        import spaf_data
        import spaf_model

        if not isinstance(error, InputError | spaf_data.InputError | spaf_model.InputError):
            raise
        _fail(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}")


def _fail(sentence: str) -> None:
    sys.stderr.write(f"spaf-analysis: {' '.join(sentence.split())}\n")
    raise SystemExit(2)


@app.command()
def report(
    embedded: Annotated[Path, typer.Argument(metavar="EMBEDDED.h5ad", help="What spaf-model embed wrote.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model directory, or starter.")],
    run: Annotated[Path, typer.Option(help="Folder that spaf-train pretrain wrote.")],
    build: Annotated[Path, typer.Option(help="Folder that spaf-data build wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Page to write.")],
    summary: Annotated[Path | None, typer.Option(help="JSON file for the key numbers.")] = None,
    key: Annotated[str, typer.Option(help="Embedding in obsm.")] = EMBEDDING,
    gene: Annotated[str | None, _GENE] = None,
    resolution: Annotated[float, _RESOLUTION] = 1.0,
    n_domains: Annotated[int | None, _N_DOMAINS] = None,
    label: Annotated[str | None, typer.Option(help="Column of obs with regions: niches are judged against it.")] = None,
    cell_type: Annotated[str | None, typer.Option(help="Column of obs with cell types; default: the clusters.")] = None,
    batch: Annotated[str | None, typer.Option(help="Column of obs with what is to be mixed; default: slides.")] = None,
    max_pairs: Annotated[int, typer.Option(help="Pairs of neighbours judged at each radius, at most.")] = MAX_PAIRS,
    replicates: Annotated[int, typer.Option(help="Resampled tissues behind each interval.")] = N_REPLICATES,
    seed: Annotated[int, _SEED] = 0,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Write one self-contained HTML page from the results of the stages.

    Example:

        spaf-analysis report embedded.h5ad --model run/model --run run --build build -o report.html
    """
    from spaf_analysis.report import ReportOptions, check_places, make_report, write_report

    options = ReportOptions(
        key=key, gene=gene, resolution=resolution, n_domains=n_domains, label=label, cell_type=cell_type, batch=batch,
        max_pairs=max_pairs, n_replicates=replicates, seed=seed,
    )  # fmt: skip
    check_places(out, summary)
    with _progress() as step:
        made = make_report(embedded, model=model, run=run, build=build, options=options, progress=step)
        write_report(made, out, summary)
    if as_json:
        print_json(made.summary)


@app.command()
def run(
    folder: Annotated[
        Path, typer.Argument(help="A run of the instrument, such as the folder of a Xenium, or a sheet (.csv).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.")],
    tissue: Annotated[
        str | None, typer.Option(help="Such as Breast; default: what the run says, else unknown.")
    ] = None,
    condition: Annotated[str | None, typer.Option(help="Such as Healthy or Disease.")] = None,
    species: Annotated[str | None, typer.Option(help="Such as Human.")] = None,
    assay: Annotated[str | None, typer.Option(help="Such as Xenium.")] = None,
    config: Annotated[str, typer.Option(help="Preset or TOML file of spaf-train pretrain.")] = "tissue",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Option of spaf-train pretrain; may be given again."),
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option(help="Um a pixel, where positions are pixels and the run does not say it.")
    ] = None,
    radius: Annotated[
        float | None, typer.Option(help="Um within which cells are neighbours; default: 30. Visium needs 120.")
    ] = None,
    slide_key: Annotated[
        str | None, typer.Option(help="Column with the slide of each cell; default: slide, library_id, sample, ...")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="REF.h5ad", help="Labelled cells x genes, whose labels are carried over.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column of the reference with the labels.")] = None,
    batch: Annotated[str | None, typer.Option(help="Column of obs with what is to be mixed; default: slides.")] = None,
    gene: Annotated[str | None, _GENE] = None,
    resolution: Annotated[float, _RESOLUTION] = 1.0,
    seed: Annotated[int, _SEED] = 0,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """From the folder of a run to a page, in one command: build, pretrain, embed, report.

    Each stage is the command line of its package and leaves its result in OUT, so that any can be repeated by hand:
    OUT/build, OUT/run, OUT/embedded.h5ad, OUT/report.html, OUT/summary.json. A folder of several runs, a table of
    several slides or a sheet (as for spaf-data build --sheet) becomes one model and one page. With --reference and
    --label the cells are labelled too (OUT/annotated.h5ad), and the page speaks of these labels: in what is mixed and
    kept between slides, what niches are made of, and which cells lie around which.

    Example:

        spaf-analysis run /data/xenium_breast -o results --tissue Breast --condition Disease

        spaf-analysis run slides.csv -o results --reference cells.h5ad --label cell_type
    """
    from spaf_analysis.report import ReportOptions, make_report, write_report
    from spaf_analysis.run import predicted_types, run_stages
    from spaf_data import claim

    context = {"tissue": tissue, "condition": condition, "species": species, "assay": assay}
    with claim(out, "spaf-analysis run"):
        embedded = run_stages(
            folder, out, context=context, config=config, settings=settings or (), pixel_size=pixel_size, radius=radius,
            slide_key=slide_key, reference=reference, label=label, announce=_announce,
        )  # fmt: skip
        options = ReportOptions(
            gene=gene, resolution=resolution, batch=batch, cell_type=predicted_types(embedded), seed=seed
        )
        _announce("report")
        with _progress() as step:
            made = make_report(
                embedded, model=out / "run" / "model", run=out / "run", build=out / "build", options=options,
                progress=step,
            )  # fmt: skip
            write_report(made, out / "report.html", out / "summary.json")
    _announce(f"done: {out / 'report.html'}")
    if as_json:
        print_json(made.summary)


_COMMANDS: dict[str, Callable[..., None]] = {
    "clusters": clusters_command,
    "spatial-genes": spatial_genes_command,
    "cell-pairs": cell_pairs_command,
    "gene-pairs": gene_pairs_command,
    "annotate": annotate_command,
    "deconvolve": deconvolve_command,
    "impute": impute_command,
    "integrate": integrate_command,
    "niches": niches_command,
    "type-pairs": type_pairs_command,
    "benchmark": benchmark_command,
    "perturb": perturb_command,
    "attention": attention_command,
    "ligrec": ligrec_command,
    "patterns": patterns_command,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(recorded(_name, _command))


def _announce(stage: str) -> None:
    Console(stderr=True, markup=False).print(Text.assemble(("spaf-analysis", "bold"), f" {stage}"), highlight=False)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show what is being done on stderr; quiet when that is not a terminal."""
    console = Console(stderr=True, markup=False)
    if not console.is_terminal:
        yield lambda name: None
        return
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(), console=console
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda name: bar.update(task, description=name)
