"""The command ``spaf-analysis ligrec``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spaf_analysis.commands import (
    JSON,
    LAYER,
    OUT,
    SEED,
    SOURCE,
    check_all_kept,
    check_result,
    print_json,
    write_result,
)
from spaf_analysis.defaults import BANDWIDTH, N_MATCHED, N_PERMUTATIONS, TILE
from spaf_analysis.errors import InputError
from spaf_analysis.keys import LIGREC, LIGREC_TYPES

if TYPE_CHECKING:
    import pandas as pd


def ligrec_command(
    source: SOURCE,
    out: OUT = None,
    cell_type: Annotated[
        str | None, typer.Option(help="Column of obs with cell types, within which cells are dealt anew.")
    ] = None,
    resource: Annotated[
        str,
        typer.Option(
            help="Table of pairs (.csv, .tsv, .parquet with columns ligand and receptor), or one of liana's by name: "
            "consensus, cellphonedb, cellchatdb, mouseconsensus, ..."
        ),
    ] = "consensus",
    scores: Annotated[
        Path | None, typer.Option(help="File to write with the scores of cells: cells x pairs.", metavar="SCORES.h5ad")
    ] = None,
    types: Annotated[
        Path | None,
        typer.Option(
            help="Table to write (.csv, .parquet) of which types send and which receive, for each pair tested.",
            metavar="TYPES.csv",
        ),
    ] = None,
    donor: Annotated[str | None, typer.Option(help="Column of obs with donors, which are then what is tested.")] = None,
    condition: Annotated[str | None, typer.Option(help="Column of obs with conditions to compare.")] = None,
    contrast: Annotated[
        tuple[str, str] | None, typer.Option(help="The two conditions, where there are more.", metavar="A B")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TABLE",
            help="Another result on gene pairs (.csv, .parquet, or a key of uns); may be repeated.",
        ),
    ] = None,
    beside_columns: Annotated[
        tuple[str, str, str] | None,
        typer.Option(
            help="Its columns: one gene, the other, whether it was called; default: those of results of this package.",
            metavar="A B CALLED",
        ),
    ] = None,
    bandwidth: Annotated[float, typer.Option(help="Standard deviation of the Gaussian kernel in um.")] = BANDWIDTH,
    tile: Annotated[float, typer.Option(help="Side in um of the squares within which cells are dealt anew.")] = TILE,
    n_matched: Annotated[int, typer.Option(help="Genes as frequent as either side, for matched pairs.")] = N_MATCHED,
    min_cells: Annotated[int, typer.Option(help="Pairs seen in fewer cells are not tested.", min=1)] = 10,
    permutations: Annotated[int, typer.Option(help="Arrangements of donors, at most.", min=1)] = N_PERMUTATIONS,
    layer: LAYER = None,
    seed: SEED = 0,
    key_added: Annotated[str, typer.Option(help="Key of uns to write.")] = LIGREC,
    as_json: JSON = False,
) -> None:
    """Find ligands whose receptor lies beside them, beyond type, place and genes as frequent.

    Example:

        spaf-analysis ligrec slide.h5ad --cell-type type --resource pairs.csv -o ligrec.csv

        spaf-analysis ligrec slide.h5ad --cell-type type --types senders_receivers.csv -o ligrec.csv

        spaf-analysis ligrec slide.h5ad --cell-type type --beside perturbation=perturb.csv --json
    """
    from spaf_analysis.ligrec.scores import ligand_receptor_scores
    from spaf_analysis.ligrec.tool import ligrec
    from spaf_analysis.ligrec.types import ligrec_types
    from spaf_analysis.tables import read_table
    from spaf_model import refuse_overwriting, replace_file

    read = [Path(resource), *(Path(words.partition("=")[2]) for words in beside or ())]
    check_result(source, out, as_json=as_json, others=read)
    if scores is not None:
        if scores.suffix != ".h5ad":
            raise InputError(f"{scores} is where an AnnData of cells x pairs goes; its name must end in .h5ad.")
        check_result(source, scores, as_json=as_json)
        if out is not None:
            refuse_overwriting(out, scores)
    if types is not None:
        if types.suffix == ".h5ad":
            raise InputError(f"{types} is where a table goes; its name must end in .csv or .parquet.")
        if cell_type is None:
            raise InputError("--types says which types send and receive: name their column too (--cell-type).")
        check_result(source, types, as_json=as_json, others=read)
        for other in (out, scores):
            if other is not None:
                refuse_overwriting(other, types)
    if contrast is not None and condition is None:
        raise InputError("--contrast is for comparing conditions: give --condition too, or leave it out.")
    if beside:
        check_all_kept(out, as_json=as_json, lost="the overlap with other results")
    others = dict(_named(words) for words in beside or ())
    adata = read_table(source)
    ligrec(
        adata, resource=resource, cell_type=cell_type, donor=donor, condition=condition, contrast=contrast,
        bandwidth=bandwidth, tile=tile, n_matched=n_matched, min_cells=min_cells, beside=others,
        beside_columns=beside_columns, n_permutations=permutations, seed=seed, layer=layer, key_added=key_added,
    )  # fmt: skip
    found = adata.uns[key_added]
    if types is not None:
        ligrec_types(adata, key=key_added)
    typer.echo(found["coverage"], err=True)
    if scores is not None:
        replace_file(scores, ligand_receptor_scores(adata, key=key_added).write_h5ad)
    for said in found["overlap"]["said"] if beside else ():
        typer.echo(said, err=True)
    if types is not None:
        write_result(adata, adata.uns[LIGREC_TYPES]["table"], types)
    write_result(adata, found["table"], out)
    if as_json:
        print_json({"coverage": found["coverage"]} | found)


def _named(words: str) -> tuple[str, str | pd.DataFrame]:
    """Return the name of another result, and its table or the key of `uns` where it is."""
    import pandas

    name, is_named, where = words.partition("=")
    if not (is_named and name and where):
        raise InputError(f"--beside takes NAME=TABLE, as perturbation=perturb.csv, not {words!r}.")
    path = Path(where)
    if path.suffix not in (".csv", ".parquet"):
        return name, where
    if not path.is_file():
        raise InputError(f"there is no file {path} (--beside).")
    return name, pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path)
