"""The card of a converted model: what is known of it, and what is not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from spaf_model.spatialformer.published.tensors import DROPPED

if TYPE_CHECKING:
    from spaf_model.spatialformer.published.checkpoint import Checkpoint

_CARD = """\
# SpatialFormer {generation}, converted from a published checkpoint

| | |
| --- | --- |
| checkpoint | `{checkpoint}` |
| SHA-256 | `{sha256}` |
| training steps | {steps} |
| attention of training | {attention} |
{vocabulary}
| genes | {n_genes:,} |
| converted by | spaf-model {spaf_model} |

Published project: https://github.com/TerminatorJ/Spatialformer (PyPI `spatialformer`).

## Licence

The published code, vocabulary and gene medians are under the MIT licence. The terms of the weights are not known: ask
whoever gave you the checkpoint before you pass this model on.

## What the conversion did

- Rows of qkv in the layout [q|k|v][head][dim]; the factor of the scores is `attention_scale` in `config.json`.
- Left out, because inference does not use them: {dropped}.
- Token ids are those of the published vocabulary. Genes without a published median are ranked by their counts.

## What to know before use

- Context is required and limited to the published names: there is no `unknown` token.
- The published embedding code (0.1.8) labels every cell Human and Xenium, whatever assay is asked for.
- The co-localisation head is not symmetric; the published code reads its upper triangle (row: the better ranked gene).
- The training data are not part of the checkpoint, and nothing here tells which cells were seen in training.
"""


def model_card(source: Checkpoint, *, attention: str, vocabulary_files: Sequence[Path], n_genes: int) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    source
        The checkpoint.
    attention
        The variant of attention, and what told it.
    vocabulary_files
        The files that the vocabulary and the medians were read from.
    n_genes
        Size of the vocabulary, genes.
    """
    return _CARD.format(
        generation=source.version,
        checkpoint=source.name,
        sha256=source.sha256,
        steps="not recorded" if source.step is None else f"{source.step:,}",
        attention=attention,
        vocabulary="\n".join(
            f"| vocabulary | `{file.name}`, SHA-256 `{hashlib.sha256(file.read_bytes()).hexdigest()}` |"
            for file in vocabulary_files
        ),
        n_genes=n_genes,
        spaf_model=version("spaf-model"),
        dropped=", ".join(f"`{name}`" for name in DROPPED),
    )
