"""The command ``spaf-analysis annotate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spaf_analysis.commands import JSON, MODEL, OUT, SEED, check_result, print_json, write_result
from spaf_analysis.keys import LABEL_PRED


def annotate_command(
    source: Annotated[Path, typer.Argument(metavar="QUERY.h5ad", help="Cells x genes with counts. It is not changed.")],
    reference: Annotated[Path, typer.Option(help="Labelled cells x genes with counts.", metavar="REF.h5ad")],
    label: Annotated[str, typer.Option(help="Column of the reference with the labels.")],
    out: OUT = None,
    method: Annotated[
        str,
        typer.Option(
            help="'log counts', 'PCA', 'k-NN', 'embedding', 'embedding and log counts', 'fine-tuned', or auto: the "
            "best on held-out parts of the reference."
        ),
    ] = "auto",
    key: Annotated[str | None, typer.Option(help="Embedding in obsm of both tables, of any model.")] = None,
    model: MODEL = None,
    fine_tune: Annotated[
        str | None,
        typer.Option(help="lora or full: also train --model for these labels, once a held-out part; takes long."),
    ] = None,
    donor: Annotated[str | None, typer.Option(help="Column of the reference; whole donors are held out.")] = None,
    unknown: Annotated[
        float, typer.Option(help="Share of held-out reference cells that may be called unknown.", min=0.0, max=0.99)
    ] = 0.05,
    layer: Annotated[str | None, typer.Option(help="Layer of the query with counts; default: X.")] = None,
    reference_layer: Annotated[str | None, typer.Option(help="Layer of the reference with counts; default: X.")] = None,
    seed: SEED = 0,
    key_added: Annotated[str, typer.Option(help="Column of obs to write.")] = LABEL_PRED,
    as_json: JSON = False,
) -> None:
    """Label cells by a reference; says which method did best on held-out parts of it.

    Example:

        spaf-analysis annotate query.h5ad --reference ref.h5ad --label cell_type -o labelled.h5ad --json
    """
    import pandas as pd

    from spaf_analysis.annotate.tool import annotate, record
    from spaf_analysis.tables import read_table

    check_result(source, out, as_json=as_json, others=[reference])
    query, known = read_table(source), read_table(reference)
    found = annotate(
        query, known, label, method=method, key=key, model=model, fine_tune=fine_tune, donor=donor, unknown=unknown,
        layer=layer, reference_layer=reference_layer, seed=seed, key_added=key_added,
    )  # fmt: skip
    cells = pd.Index(query.obs_names.astype(str), name="cell")
    columns = {"label": query.obs[key_added].astype(str), "probability": query.obs[f"{key_added}_probability"]}
    write_result(query, pd.DataFrame({name: values.to_numpy() for name, values in columns.items()}, index=cells), out)
    if as_json:
        print_json(record(found) | {"n_query": query.n_obs, "notes": query.uns[key_added]["notes"]})
