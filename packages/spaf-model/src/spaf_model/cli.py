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
import torch
import typer
from rich.logging import RichHandler
from rich.table import Table

from spaf_model._console import plain_console
from spaf_model._h5ad import backed_h5ad, refuse_overwriting, write_copy
from spaf_model.distributed import launched_by_torchrun, torchrun_group
from spaf_model.embedding import EmbeddingMethod, Precision
from spaf_model.errors import InputError
from spaf_model.gene_attention import DIRECTIONS
from spaf_model.kernels import KernelName, available_kernels, select_convolution, select_kernel, select_matmul
from spaf_model.model import COLOCALIZATION_KEY, DEFAULT_KEY, SpatialFormer
from spaf_model.outputs import check_key, check_output
from spaf_model.pairs import pair_positions, read_pair_file, table_kind, write_array, write_table
from spaf_model.published import AttentionVariant, convert_published
from spaf_model.shipped import STARTER
from spaf_model.vocabulary import CONTEXT_KINDS

app = typer.Typer(
    name="spaf-model",
    help="Spatial single-cell foundation models: embed cells, judge pairs of cells and of genes, convert models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
logger = logging.getLogger(__name__)

_KERNEL_CASES = ((8, 100), (8, 1000), (64, 100), (64, 2000))  # (head_dim, length) that `kernels` reports on

# Arguments and options that several commands have.
Source = Annotated[Path, typer.Argument(metavar="IN.h5ad", help="Raw counts, cells x genes. It is not changed.")]
ModelDirectory = Annotated[
    str, typer.Option("--model", "-m", help="Model directory, or a model that comes with spaf-model: starter.")
]
OptionalModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Model directory, or a model that comes with spaf-model. Default: starter."),
]
CopyOutput = Annotated[Path, typer.Option("--output", "-o", help="The h5ad to write: IN.h5ad with the result.")]
TableOutput = Annotated[Path, typer.Option("--output", "-o", help="The table to write: .csv, .tsv or .parquet.")]
PairFile = Annotated[
    Path, typer.Option("--pairs", "-p", help="Table of pairs, .csv, .tsv or .parquet: cell names in 'left', 'right'.")
]
Tissue = Annotated[str | None, typer.Option(help="Tissue of all cells. Default: obs column 'tissue'.")]
Condition = Annotated[str | None, typer.Option(help="Condition. Default: obs column 'condition'.")]
Species = Annotated[str | None, typer.Option(help="Species. Default: obs column 'species'.")]
Assay = Annotated[str | None, typer.Option(help="Assay. Default: obs column 'assay'.")]
CountLayer = Annotated[str | None, typer.Option(help="Layer with the counts. Default: X.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]
ComputePrecision = Annotated[Precision, typer.Option(help="bf16 is faster where the processor has it.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: what torch chooses.")]
TokenBudget = Annotated[
    int | None,
    typer.Option(min=1, help="Most tokens of a batch; lower it when memory runs out. Default: by device and width."),
]
Kernel = Annotated[KernelName | None, typer.Option(help="Attention kernel. Default: see 'kernels'.")]
MinGeneFraction = Annotated[float, typer.Option(min=0.0, max=1.0, help="Least share of genes found.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse cells without any gene of the model.")]


@app.callback()
def _configure(context: typer.Context) -> None:
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=plain_console(stderr=True), show_path=False)],
    )
    if launched_by_torchrun() and context.invoked_subcommand != "embed":
        raise InputError(f"{context.invoked_subcommand} works in one process: start it without torchrun.")


@app.command()
def embed(
    source: Source,
    output: CopyOutput,
    model: OptionalModel = None,
    method: Annotated[EmbeddingMethod, typer.Option(help="State of the CLS token, or mean over genes.")] = "cls",
    tissue: Tissue = None,
    condition: Condition = None,
    species: Species = None,
    assay: Assay = None,
    layer: CountLayer = None,
    key: Annotated[str, typer.Option(help="Key of the embedding in obsm.")] = DEFAULT_KEY,
    device: Device = "cpu",
    precision: ComputePrecision = "fp32",
    threads: Threads = None,
    token_budget: TokenBudget = None,
    kernel: Kernel = None,
    min_gene_fraction: MinGeneFraction = 0.5,
    strict: Strict = False,
) -> None:
    """Embed the cells of an h5ad into obsm["X_SpaF"] of a new one.

    Under torchrun, the cells are shared among the processes; with --device cuda each has a GPU of its own.

    For example:

    \b
    spaf-model embed slide.h5ad -o embedded.h5ad
    spaf-model embed slide.h5ad --model breast-model -o embedded.h5ad
    spaf-model embed slide.h5ad --model breast-model --tissue Breast --condition unknown -o embedded.h5ad
    torchrun --nproc-per-node 4 -m spaf_model.cli embed slide.h5ad -m breast-model --device cuda -o embedded.h5ad
    """
    refuse_overwriting(source, output)
    check_output(output)
    check_key(key, "--key")
    shared = launched_by_torchrun()
    with torchrun_group() if shared else contextlib.nullcontext((0, 0)) as (rank, local_rank):
        network = _load(_or_starter(model), f"cuda:{local_rank}" if shared and device == "cuda" else device, threads)
        with backed_h5ad(source) as adata:
            network.embed(
                adata,
                method=method,
                tissue=tissue,
                condition=condition,
                species=species,
                assay=assay,
                layer=layer,
                key_added=key,
                token_budget=token_budget,
                precision=precision,
                kernel=kernel,
                min_gene_fraction=min_gene_fraction,
                strict=strict,
                distributed=shared,
                progress=rank == 0,
            )
        if rank == 0:
            added = {"obsm": {key: adata.obsm[key]}, "uns": {"spaf": adata.uns["spaf"]}}
            write_copy(source, output, added)
            logger.info("Wrote obsm[%r] of %d cells to %s", key, adata.n_obs, output)


@app.command()
def pairs(
    source: Source,
    pair_file: PairFile,
    model: ModelDirectory,
    output: TableOutput,
    embeddings: Annotated[
        Path | None, typer.Option(help="Also write the embeddings of the pairs, as .npy: a row for each pair.")
    ] = None,
    tissue: Tissue = None,
    condition: Condition = None,
    species: Species = None,
    assay: Assay = None,
    layer: CountLayer = None,
    device: Device = "cpu",
    precision: ComputePrecision = "fp32",
    threads: Threads = None,
    token_budget: TokenBudget = None,
    kernel: Kernel = None,
    min_gene_fraction: MinGeneFraction = 0.5,
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
        result = _load(model, device, threads).embed_pairs(
            adata,
            table["left"],
            table["right"],
            tissue=tissue,
            condition=condition,
            species=species,
            assay=assay,
            layer=layer,
            token_budget=token_budget,
            precision=precision,
            kernel=kernel,
            min_gene_fraction=min_gene_fraction,
            progress=True,
        )
    n_empty = int(np.isnan(result.probabilities).sum())
    if n_empty:
        logger.warning("%d of %d pairs have a cell without any gene of the model.", n_empty, len(table))
    if embeddings is not None:
        write_array(embeddings, result.embeddings)
    write_table(output, table.assign(probability=result.probabilities))
    logger.info("Wrote the probabilities of %d pairs to %s", len(table), output)


@app.command()
def colocalization(
    source: Source,
    model: ModelDirectory,
    output: CopyOutput,
    threshold: Annotated[float, typer.Option(help="Least probability of a gene pair, above 0 and below 1.")] = 0.7,
    tissue: Tissue = None,
    condition: Condition = None,
    species: Species = None,
    assay: Assay = None,
    layer: CountLayer = None,
    key: Annotated[str, typer.Option(help="Key of the result in obsm and uns.")] = COLOCALIZATION_KEY,
    device: Device = "cpu",
    precision: ComputePrecision = "fp32",
    threads: Threads = None,
    token_budget: TokenBudget = None,
    kernel: Kernel = None,
    min_gene_fraction: MinGeneFraction = 0.5,
    strict: Strict = False,
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
    check_key(key, "--key")
    network = _load(model, device, threads)
    with backed_h5ad(source) as adata:
        network.predict_colocalization(
            adata,
            threshold,
            tissue=tissue,
            condition=condition,
            species=species,
            assay=assay,
            layer=layer,
            key_added=key,
            token_budget=token_budget,
            precision=precision,
            kernel=kernel,
            min_gene_fraction=min_gene_fraction,
            strict=strict,
            progress=True,
        )
    result = adata.obsm[key]
    write_copy(source, output, {"obsm": {key: result}, "uns": {key: adata.uns[key], "spaf": adata.uns["spaf"]}})
    logger.info("Wrote %d gene pairs in %d cells to %s", result.shape[1], adata.n_obs, output)


@app.command()
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
    tissue: Tissue = None,
    condition: Condition = None,
    species: Species = None,
    assay: Assay = None,
    layer: CountLayer = None,
    device: Device = "cpu",
    precision: ComputePrecision = "fp32",
    threads: Threads = None,
    token_budget: TokenBudget = None,
    min_gene_fraction: MinGeneFraction = 0.5,
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
    network = _load(model, device, threads)
    with backed_h5ad(source) as adata:
        result = network.attention(
            adata,
            table,
            layers,
            heads,
            minus_alibi=not with_alibi,
            tissue=tissue,
            condition=condition,
            species=species,
            assay=assay,
            layer=layer,
            token_budget=token_budget,
            precision=precision,
            min_gene_fraction=min_gene_fraction,
            progress=True,
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
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint of the published SpatialFormer.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model directory to write.")],
    vocabulary: Annotated[
        Path | None, typer.Option(help="Published token file: tokenv5.json, for v1 tokenv4.json.")
    ] = None,
    scale: Annotated[Path | None, typer.Option(help="Published gene medians: gene_median.pkl.")] = None,
    from_wheel: Annotated[
        Path | None, typer.Option(help="Published wheel; instead of --vocabulary and --scale.")
    ] = None,
    attention: Annotated[
        AttentionVariant | None,
        typer.Option(help="Attention that the weights were trained with. Default: what the checkpoint records."),
    ] = None,
) -> None:
    """Convert a checkpoint of the published SpatialFormer (v1 or v2) to a model directory.

    Nothing in the files can run. The same weights compute two different functions, depending on the attention they were
    trained with; which one is taken from the checkpoint or from --attention, never guessed.

    For example:

    \b
    pip download --no-deps spatialformer==0.1.8
    spaf-model convert v2.ckpt --from-wheel spatialformer-0.1.8-py3-none-any.whl -o model-v2
    spaf-model convert v1.ckpt --vocabulary tokenv4.json --scale gene_median.pkl --attention explicit -o model-v1
    """
    check_output(output, folder=True)
    model = convert_published(checkpoint, vocabulary=vocabulary, scale=scale, wheel=from_wheel, attention=attention)
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
    loaded = SpatialFormer.from_pretrained(model)
    vocabulary = loaded.vocabulary
    content: dict[str, Any] = {
        "path": str(model),
        "family": "spatialformer",
        "n_parameters": loaded.n_parameters,
        "n_genes": int(vocabulary.gene_token_ids.size),
        "context": {kind: list(vocabulary.context[kind]) for kind in CONTEXT_KINDS},
        "config": loaded.config.as_dict(),
        "card": loaded.card,
    }
    if as_json:
        typer.echo(json.dumps(content, indent=2))
        return
    table = Table(title=str(model), show_header=False, title_justify="left")
    table.add_row("parameters", f"{loaded.n_parameters:,}")
    table.add_row("genes", f"{vocabulary.gene_token_ids.size:,}")
    for kind in CONTEXT_KINDS:
        table.add_row(kind, ", ".join(vocabulary.context[kind]))
    for name, value in loaded.config.as_dict().items():
        table.add_row(name, str(value))
    console = plain_console()
    console.print(table)
    if loaded.card:
        console.print(loaded.card)


@app.command()
def kernels(
    device: Annotated[
        str | None, typer.Option(help="Device to ask about. Default: cuda if there is one, else cpu.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell which attention kernels and matrix products work here, which would be chosen, and why.

    For example:

    \b
    spaf-model kernels --json
    """
    asked = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(asked)
    except RuntimeError as error:
        raise InputError(f"There is no device {asked!r}: {str(error).splitlines()[0]}") from error
    available = available_kernels(where)
    chosen = [
        {"head_dim": head_dim, "length": length, "kernel": choice.name, "reason": choice.reason}
        for head_dim, length in _KERNEL_CASES
        for choice in [select_kernel(where, torch.float32, head_dim, length)]
    ]
    matmul = select_matmul(where, torch.float32)
    convolution = select_convolution(where, torch.bfloat16)
    if as_json:
        content = {
            "device": str(where),
            "matmul": {"path": matmul.name, "reason": matmul.reason},
            "convolution": {"path": convolution.name, "reason": convolution.reason},
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "kernels": available,
            "choices": chosen,
        }
        typer.echo(json.dumps(content, indent=2))
        return
    console = plain_console()
    table = Table(title=f"Attention kernels on {where}", title_justify="left")
    table.add_column("kernel")
    table.add_column("state")
    for name, state in available.items():
        table.add_row(name, state)
    console.print(table)
    choices = Table(title="What would be chosen (fp32)", title_justify="left")
    for column in ("head size", "length", "kernel", "why"):
        choices.add_column(column)
    for choice in chosen:
        choices.add_row(*(str(value) for value in choice.values()))
    console.print(choices)
    console.print(f"Matrix products (fp32): {matmul.name}; {matmul.reason}")
    console.print(f"Depthwise convolution (bf16): {convolution.name}; {convolution.reason}")


def _or_starter(model: str | None) -> str:
    if model is None:
        logger.warning(
            "No model named: the starter model is used, made from one section of breast (see: spaf-model info starter)."
        )
    return model or STARTER


def _load(model: str, device: str, threads: int | None) -> SpatialFormer:
    if threads is not None:
        torch.set_num_threads(threads)
    return SpatialFormer.from_pretrained(model, device=device)


def main() -> None:
    """Run the command line; errors of the user become one line and exit code 2."""
    try:
        app()
    except (InputError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        sys.stderr.write(f"spaf-model: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
