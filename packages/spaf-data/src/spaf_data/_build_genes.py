"""The genes of the slides of a build: looked at before the work where files say them, and told of at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaf_data.gene_identity import GeneNames, check_gene_ids, check_same_genes, join_genes, unclear_genes
from spaf_data.readers import genes_known_before

if TYPE_CHECKING:
    from spaf_data.corpus import Corpus
    from spaf_data.options import BuildOptions, SlideSource


def check_genes_before(sources: Sequence[SlideSource], options: BuildOptions) -> None:
    """Refuse slides that make no corpus by their genes, as far as files say these without being read."""
    read: dict[tuple[Path, str | None], GeneNames | None] = {}
    genes = []
    for source in sources:
        key = source.path, source.reading.layer
        if key not in read:
            read[key] = genes_known_before(source.path, source.reading, platform=source.platform)
        found = read[key]
        if found is not None:
            genes.append(replace(found, where=f"slide {source.slide}", species=source.species or found.species))
    check_gene_ids(genes)
    if len(genes) == len(sources):
        check_same_genes(genes, join_genes(genes), allow_other_genes=options.allow_other_genes)


def said_of_genes(genes: Sequence[GeneNames]) -> dict[str, list[str]]:
    """Return what a build records of the genes of its slides."""
    union = join_genes(genes)
    return {
        "other_genes": check_same_genes(genes, union, allow_other_genes=True),
        "unclear_genes": unclear_genes(genes, union),
    }


def gene_account(corpus: Corpus, slide: str) -> dict[str, Any]:
    """Return what became of the genes of a slide in the corpus."""
    record = corpus.manifest.slides[slide]
    return {name: record[name] for name in ("n_genes_shared", "n_genes_renamed", "genes_added_up")}
