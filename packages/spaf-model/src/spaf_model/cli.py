"""The command line ``spaf-model``."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.logging import RichHandler
from rich.table import Table

from spaf_model._commands import (
    BaseUrl,
    CopyOutput,
    Device,
    ModelDirectory,
    OptionalModel,
    PairFile,
    Source,
    TableOutput,
    Threads,
    load,
    or_starter,
    shared_options,
)
from spaf_model._console import plain_console
from spaf_model._h5ad import backed_h5ad, refuse_overwriting, write_copy
from spaf_model._kernels_command import kernels
from spaf_model._web_commands import add_to
from spaf_model.asking import EmbedsPairs, PredictsColocalization, ShowsAttention, asked
from spaf_model.conversion import import_published
from spaf_model.distributed import ends_at_once, launched_by_torchrun, torchrun_group
from spaf_model.errors import InputError
from spaf_model.loading import load_model
from spaf_model.model import DEFAULT_KEY
from spaf_model.niche import NICHE
from spaf_model.options import KernelOptions, SharedOptions
from spaf_model.outputs import check_key, check_output
from spaf_model.pairs import pair_positions, read_pair_file
from spaf_model.results import DIRECTIONS
from spaf_model.shipped import STARTER
from spaf_model.spatialformer import COLOCALIZATION_KEY, AttentionVariant
from spaf_model.tables import table_kind, write_array, write_table
from spaf_model.vocabulary import CONTEXT_KINDS

app = typer.Typer(
    name="spaf-model",
    help="Spatial single-cell foundation models: embed cells, judge pairs of cells and of genes, convert models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
logger = logging.getLogger(__name__)


@app.callback()
def _configure(context: typer.Context) -> None:
    handler = RichHandler(console=plain_console(stderr=True), show_path=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    if launched_by_torchrun() and context.invoked_subcommand != "embed":
        raise InputError(f"{context.invoked_subcommand} works in one process: start it without torchrun.")


@app.command()
@shared_options(KernelOptions)
def embed(
    source: Source,
    output: CopyOutput,
    model: OptionalModel = None,
    base_url: BaseUrl = None,
    method: Annotated[
        str | None, typer.Option(help="How a cell gets one state. Of a SpatialFormer: cls, the state of CLS, or gene.")
    ] = None,
    key: Annotated[str, typer.Option("--key-added", "--key", help="Key of the embedding in obsm.")] = DEFAULT_KEY,
    parts: Annotated[bool, typer.Option("--parts", help="Also write the named parts of the embedding.")] = False,
    niche: Annotated[
        bool, typer.Option("--niche", help="Also write the state of each cell with its surroundings, at two scales.")
    ] = False,
    device: Device = "cpu",
    n_threads: Threads = None,
    **options: Any,
) -> None:
    """Embed the cells of an h5ad into obsm["X_SpaF"] of a new one.

    Under torchrun, the cells are shared among the processes; with --device cuda each has a GPU of its own.

    For example:

    \b
    spaf-model embed slide.h5ad -o embedded.h5ad
    spaf-model embed slide.h5ad --model breast-model -o embedded.h5ad
    spaf-model embed slide.h5ad --model breast-model --tissue Breast --condition unknown -o embedded.h5ad
    spaf-model embed slide.h5ad --model breast@2026-11 --base-url https://lab.example/models -o embedded.h5ad
    torchrun --nproc-per-node 4 -m spaf_model.cli embed slide.h5ad -m breast-model --device cuda -o embedded.h5ad
    """
    refuse_overwriting(source, output)
    check_output(output)
    check_key(key, "--key-added")
    shared = launched_by_torchrun()
    with torchrun_group() if shared else contextlib.nullcontext((0, 0)) as (rank, local_rank):
        place = f"cuda:{local_rank}" if shared and device == "cuda" else device
        network = load(or_starter(model), place, n_threads, base_url)
        with backed_h5ad(source) as adata:
            network.embed(
                adata,
                method=method,
                key_added=key,
                parts=parts,
                niche=niche,
                distributed=shared,
                progress=rank == 0,
                **options,
            )
        if rank == 0:
            keys = [key, *(f"{key}_{part}" for part in [*network.parts] * parts + [NICHE] * niche)]
            added = {"obsm": {name: adata.obsm[name] for name in keys}, "uns": {"spaf": adata.uns["spaf"]}}
            write_copy(source, output, added)
            logger.info("Wrote obsm[%r] of %d cells to %s", key, adata.n_obs, output)


@app.command()
@shared_options(KernelOptions)
def pairs(
    source: Source,
    pair_file: PairFile,
    model: ModelDirectory,
    output: TableOutput,
    embeddings: Annotated[
        Path | None, typer.Option(help="Also write the embeddings of the pairs, as .npy: a row for each pair.")
    ] = None,
    device: Device = "cpu",
    n_threads: Threads = None,
    **options: Any,
) -> None:
    """Tell how likely pairs of cells are neighbours.

    The table has the columns left, right and probability, in the order of the pairs; swapping the two cells of a pair
    changes nothing. The probability is empty where a cell has no gene of the model.

    For example:

    \b
    spaf-model pairs slide.h5ad --pairs pairs.csv --model breast-model -o probabilities.csv
    spaf-model pairs slide.h5ad --pairs pairs.csv --model breast-model -o out.parquet --embeddings out.npy
    """
    refuse_overwriting(source, output, embeddings)
    check_output(output, embeddings)
    table_kind(output)
    table = read_pair_file(pair_file)
    with backed_h5ad(source) as adata:
        pair_positions(adata, table["left"], table["right"])  # before the model is loaded
        result = asked(load(model, device, n_threads), EmbedsPairs).embed_pairs(
            adata,
            table["left"],
            table["right"],
            progress=True,
            **options,
        )
    n_empty = int(np.isnan(result.probabilities).sum())
    if n_empty:
        logger.warning("%d of %d pairs have a cell without any gene of the model.", n_empty, len(table))
    if embeddings is not None:
        write_array(embeddings, result.embeddings)
    write_table(output, table.assign(probability=result.probabilities))
    logger.info("Wrote the probabilities of %d pairs to %s", len(table), output)


@app.command()
@shared_options(KernelOptions)
def colocalization(
    source: Source,
    model: ModelDirectory,
    output: CopyOutput,
    threshold: Annotated[float, typer.Option(help="Least probability of a gene pair, above 0 and below 1.")] = 0.7,
    key: Annotated[
        str, typer.Option("--key-added", "--key", help="Key of the result in obsm and uns.")
    ] = COLOCALIZATION_KEY,
    device: Device = "cpu",
    n_threads: Threads = None,
    **options: Any,
) -> None:
    """Predict which genes lie together in each cell, into obsm["colocalization_pred"] of a new h5ad.

    The matrix is cells x gene pairs; uns["colocalization_pred"]["pairs"] names the two genes of each column.

    For example:

    \b
    spaf-model colocalization slide.h5ad --model breast-model -o pairs.h5ad
    spaf-model colocalization slide.h5ad --model breast-model --threshold 0.9 -o pairs.h5ad
    """
    refuse_overwriting(source, output)
    check_output(output)
    check_key(key, "--key-added")
    network = asked(load(model, device, n_threads), PredictsColocalization)
    with backed_h5ad(source) as adata:
        network.predict_colocalization(
            adata,
            threshold,
            key_added=key,
            progress=True,
            **options,
        )
    result = adata.obsm[key]
    write_copy(source, output, {"obsm": {key: result}, "uns": {key: adata.uns[key], "spaf": adata.uns["spaf"]}})
    logger.info("Wrote %d gene pairs in %d cells to %s", result.shape[1], adata.n_obs, output)


@app.command()
@shared_options(SharedOptions)
def attention(
    source: Source,
    pair_file: PairFile,
    model: ModelDirectory,
    output: TableOutput,
    layers: Annotated[list[int] | None, typer.Option(help="Network layer, from 0; repeatable. Default: all.")] = None,
    heads: Annotated[list[int] | None, typer.Option(help="Attention head, from 0; repeatable. Default: all.")] = None,
    with_alibi: Annotated[
        bool, typer.Option("--with-alibi", help="Do not subtract what the distance in rank alone gives.")
    ] = False,
    min_pairs: Annotated[int, typer.Option(min=1, help="Leave out what fewer pairs of cells have.")] = 1,
    device: Device = "cpu",
    n_threads: Threads = None,
    **options: Any,
) -> None:
    """Tell which genes attend to which, between and within the two cells of pairs.

    The table has the columns direction (left_to_right, right_to_left, within_left, within_right), query, key, weight
    (mean over pairs, layers and heads) and n_pairs, strongest first in each direction.

    For example:

    \b
    spaf-model attention slide.h5ad --pairs pairs.csv --model breast-model -o attention.csv
    spaf-model attention slide.h5ad --pairs pairs.csv --model breast-model --layers 8 --layers 9 -o attention.parquet
    """
    refuse_overwriting(source, output)
    check_output(output)
    table_kind(output)
    table = read_pair_file(pair_file)
    network = asked(load(model, device, n_threads), ShowsAttention)
    with backed_h5ad(source) as adata:
        result = network.attention(
            adata,
            table,
            layers,
            heads,
            minus_alibi=not with_alibi,
            progress=True,
            **options,
        )
    if result.n_empty:
        logger.warning("%d of %d pairs have a cell without any gene of the model.", result.n_empty, len(table))
    tables = [
        result.table(direction, min_pairs=min_pairs).assign(direction=direction)[
            ["direction", "query", "key", "weight", "n_pairs"]
        ]
        for direction in DIRECTIONS
    ]
    write_table(output, pd.concat(tables, ignore_index=True))
    logger.info("Wrote the attention in %d pairs to %s", result.n_cell_pairs, output)


@app.command()
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="Published SpatialFormer checkpoint, or folder of scGPT-spatial.")
    ],
    output: Annotated[Path, typer.Option("--out", "--output", "-o", help="The model directory to write.")],
    vocabulary: Annotated[Path | None, typer.Option(help="Token file: tokenv5.json, for v1 tokenv4.json.")] = None,
    scale: Annotated[Path | None, typer.Option(help="Published gene medians: gene_median.pkl.")] = None,
    from_wheel: Annotated[Path | None, typer.Option(help="Wheel; instead of --vocabulary and --scale.")] = None,
    attention: Annotated[
        AttentionVariant | None,
        typer.Option(help="Attention that the weights were trained with. Default: what the checkpoint records."),
    ] = None,
    vocabulary_wheel: Annotated[Path | None, typer.Option(help="Of a folder: wheel of scgpt, not vocab.json.")] = None,
    gene_ids: Annotated[Path | None, typer.Option(help="Of a folder: table of Ensembl ids and symbols.")] = None,
) -> None:
    """Convert a published SpatialFormer (v1 or v2), scGPT-spatial or scGPT to a model directory.

    Nothing in the files can run. The same SpatialFormer weights compute two different functions, depending on the
    attention they were trained with; which one is taken from the checkpoint or from --attention, never guessed.

    For example:

    \b
    pip download --no-deps spatialformer==0.1.8
    spaf-model convert v2.ckpt --from-wheel spatialformer-0.1.8-py3-none-any.whl -o model-v2
    spaf-model convert v1.ckpt --vocabulary tokenv4.json --scale gene_median.pkl --attention explicit -o model-v1
    spaf-model convert scGPT_spatial_v1 --gene-ids features.tsv.gz -o scgpt-spatial
    """
    check_output(output, folder=True)
    model = import_published(
        checkpoint, vocabulary=vocabulary, scale=scale, from_wheel=from_wheel, attention=attention,
        vocabulary_wheel=vocabulary_wheel, gene_ids=gene_ids,
    )  # fmt: skip
    model.save_pretrained(output)
    logger.info("Wrote %s, %s parameters", output, f"{model.n_parameters:,}")


@app.command()
def info(
    model: Annotated[str, typer.Argument(metavar="DIR", help="Model directory, or starter.")] = STARTER,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell what a model directory holds.

    For example:

    \b
    spaf-model info breast-model
    spaf-model info breast-model --json
    """
    loaded = load_model(model)
    vocabulary = loaded.vocabulary
    content: dict[str, Any] = {
        "path": str(model),
        "family": loaded.family,
        "n_parameters": loaded.n_parameters,
        "n_genes": int(vocabulary.gene_token_ids.size),
        "context": {kind: list(vocabulary.context[kind]) for kind in CONTEXT_KINDS},
        "config": loaded.config.as_dict(),
        "report": loaded.report(),
        "card": loaded.card,
    }
    if as_json:
        typer.echo(json.dumps(content, indent=2))
        return
    table = Table(title=str(model), show_header=False, title_justify="left")
    table.add_row("family", loaded.family)
    table.add_row("parameters", f"{loaded.n_parameters:,}")
    table.add_row("genes", f"{vocabulary.gene_token_ids.size:,}")
    for kind in CONTEXT_KINDS:
        table.add_row(kind, ", ".join(vocabulary.context[kind]))
    told = {title: found["sentence"] for title, found in loaded.report().items()}
    for name, value in {**loaded.config.as_dict(), **told}.items():
        table.add_row(name, str(value))
    console = plain_console()
    console.print(table)
    if loaded.card:
        console.print(loaded.card)


app.command()(kernels)
add_to(app)


def main() -> None:
    """Run the command line; errors of the user become one line and exit code 2."""
    try:
        app()
    except (InputError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        sys.stderr.write(f"spaf-model: {error}\n")
        sys.exit(2)


command = ends_at_once(main)
if __name__ == "__main__":
    command()
