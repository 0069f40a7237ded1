"""The card of a converted model: what is known of it, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from spaf_model.checkpoints import sha256_of
from spaf_model.scgpt_spatial.published.folder import Kind, known_as
from spaf_model.scgpt_spatial.tokeniser import technology_names

if TYPE_CHECKING:
    from spaf_model.scgpt_spatial.model import ScGPTSpatial

_CARD = """\
# {kind}, converted from a published checkpoint

| | |
| --- | --- |
{files}
| tensors | {n_tensors}, {n_parameters:,} parameters |
| genes | {n_genes:,}, of which {n_means:,} have a population mean |
| technologies | {technologies} |
| converted by | spaf-model {spaf_model} |

Published projects: https://github.com/bowang-lab/scGPT-spatial and https://github.com/bowang-lab/scGPT.

## Licence

The published code is under the MIT licence. The terms of the weights are not known: ask whoever gave you the checkpoint
before you pass this model on.

## What the conversion did

- All tensors were read; {dropped}.
- Token ids are those of the published vocabulary. A gene without a population mean is divided by 1; the published code
  takes a mean of the data that it is given in one call, so that its values change with what else is passed.
- Known files are told by how their SHA-256 begin, which is all that was known of them.

## What to know before use

- Human genes. Genes that a panel does not measure are unknown, not zero.
- The published code draws bins of genes of equal count at random, and genes of cells longer than its limit; here the
  middle bin is taken and the genes of highest value stay, so that equal cells have equal embeddings.
- Outputs are bins of a cell, 1 to {last_bin}: ranks among its genes, not counts.
- An embedding is of a cell alone: neither its place nor its technology is read. Nothing here measured how good it is.
"""


def model_card(kind: Kind, model: ScGPTSpatial, *, files: Sequence[Path], n_dropped: int) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    kind
        Which of the two published models it is.
    model
        As converted.
    files
        That it was made of.
    n_dropped
        Tensors that were left out.
    """
    rows = []
    for file in files:
        sha256 = sha256_of(file)
        known = known_as(sha256)
        rows.append(f"| `{file.name}` | SHA-256 `{sha256}`{f', begins as {known}' if known else ''} |")
    vocabulary = model.vocabulary
    return _CARD.format(
        kind=kind,
        files="\n".join(rows),
        n_tensors=len(model.network.state_dict()),
        n_parameters=model.n_parameters,
        n_genes=int(vocabulary.gene_token_ids.size),
        n_means=int((vocabulary.scale[vocabulary.gene_token_ids] != 1.0).sum()),
        technologies=", ".join(technology_names(vocabulary)) or "none",
        spaf_model=version("spaf-model"),
        dropped=f"{n_dropped} of heads of labels were left out" if n_dropped else "none is left out",
        last_bin=model.config.n_bins - 1,
    )
