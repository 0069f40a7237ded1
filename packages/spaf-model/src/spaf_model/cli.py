"""The command line ``spaf-model``."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import anndata
import h5py
import torch
import typer
from anndata.io import write_elem
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from spaf_model._files import replace_file
from spaf_model.embedding import EmbeddingMethod, Precision
from spaf_model.errors import InputError
from spaf_model.kernels import KernelName, available_kernels, select_kernel
from spaf_model.model import DEFAULT_KEY, SpatialFormer
from spaf_model.published import AttentionVariant, convert_published
from spaf_model.shipped import STARTER
from spaf_model.vocabulary import CONTEXT_KINDS

app = typer.Typer(
    name="spaf-model",
    help="Spatial single-cell foundation models: embed cells, inspect models, convert published ones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_KERNEL_CASES = ((8, 100), (8, 1000), (64, 100), (64, 2000))  # (head_dim, length) that `kernels` reports on


@app.callback()
def _configure() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=Console(stderr=True), show_path=False)]
    )


@app.command()
def embed(
    source: Annotated[Path, typer.Argument(metavar="IN.h5ad", help="Raw counts, cells x genes. It is not changed.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The h5ad to write: IN.h5ad with the embedding.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model directory, or a model that comes with spaf-model. Default: starter."),
    ] = None,
    method: Annotated[EmbeddingMethod, typer.Option(help="State of the CLS token, or mean over genes.")] = "cls",
    tissue: Annotated[str | None, typer.Option(help="Tissue of all cells. Default: obs column 'tissue'.")] = None,
    condition: Annotated[str | None, typer.Option(help="Condition. Default: obs column 'condition'.")] = None,
    species: Annotated[str | None, typer.Option(help="Species. Default: obs column 'species'.")] = None,
    assay: Annotated[str | None, typer.Option(help="Assay. Default: obs column 'assay'.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer with the counts. Default: X.")] = None,
    key: Annotated[str, typer.Option(help="Key of the embedding in obsm.")] = DEFAULT_KEY,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="bf16 is faster where the processor has it.")] = "fp32",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: what torch chooses.")] = None,
    token_budget: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most tokens of a batch; lower it when memory runs out. Default: by device and width."
        ),
    ] = None,
    kernel: Annotated[KernelName | None, typer.Option(help="Attention kernel. Default: see 'kernels'.")] = None,
    min_gene_fraction: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least share of genes found.")] = 0.5,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse cells without any gene of the model.")] = False,
) -> None:
    """Embed the cells of an h5ad into obsm["X_SpaF"] of a new one.

    For example:

    \b
    spaf-model embed slide.h5ad -o embedded.h5ad
    spaf-model embed slide.h5ad --model breast-model -o embedded.h5ad
    spaf-model embed slide.h5ad --model breast-model --tissue Breast --condition unknown -o embedded.h5ad
    """
    if not source.is_file():
        raise InputError(f"{source} does not exist or is not a file.")
    if output.exists() and output.samefile(source):
        raise InputError(f"The output would overwrite the input {source}; name another file.")
    if threads is not None:
        torch.set_num_threads(threads)
    if model is None:
        model = STARTER
        logging.getLogger(__name__).info(
            "No model named: the starter model is used, made from one section of breast (see: spaf-model info starter)."
        )
    network = SpatialFormer.from_pretrained(model, device=device)
    adata = _open_backed(source)
    try:
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
            progress=True,
        )
    finally:
        adata.file.close()
    output.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        # A copy of the file plus two elements: everything else stays as it was, and the expression is never loaded.
        shutil.copyfile(source, temporary)
        with h5py.File(temporary, "r+") as file:
            _write_into(file, "obsm", key, adata.obsm[key])
            _write_into(file, "uns", "spaf", adata.uns["spaf"])

    replace_file(output, write)
    logging.getLogger(__name__).info("Wrote obsm[%r] of %d cells to %s", key, adata.n_obs, output)


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
    model = convert_published(checkpoint, vocabulary=vocabulary, scale=scale, wheel=from_wheel, attention=attention)
    model.save_pretrained(output)
    logging.getLogger(__name__).info("Wrote %s, %s parameters", output, f"{model.n_parameters:,}")


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
    console = Console()
    console.print(table)
    if loaded.card:
        console.print(loaded.card, markup=False)


@app.command()
def kernels(
    device: Annotated[
        str | None, typer.Option(help="Device to ask about. Default: cuda if there is one, else cpu.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell which attention kernels work here, which would be chosen, and why.

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
    if as_json:
        content = {
            "device": str(where),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "kernels": available,
            "choices": chosen,
        }
        typer.echo(json.dumps(content, indent=2))
        return
    console = Console()
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


def _open_backed(path: Path) -> anndata.AnnData:
    try:
        return anndata.read_h5ad(path, backed="r")
    except PermissionError:
        raise
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an h5ad: {str(error).splitlines()[0]}") from error


def _write_into(file: h5py.File, group: str, key: str, value: Any) -> None:
    if group not in file:
        write_elem(file, group, {})
    write_elem(file[group], key, value)


def main() -> None:
    """Run the command line; errors of the user become one line and exit code 2."""
    try:
        app()
    except (InputError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        sys.stderr.write(f"spaf-model: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
