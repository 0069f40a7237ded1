"""The table of gene vectors of a new model, set from gene embeddings."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model import InputError
from spaf_train._checks import require
from spaf_train._options import check_types

if TYPE_CHECKING:
    from spaf_model import Model

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneTableConfig:
    """Gene embeddings that a new model starts from, in a table beside that of its tokens."""

    path: str | None = None  # folder that spaf-train gene-embeddings wrote; none: the model has no such table
    trainable: bool = True  # whether the table is trained on; false: it keeps the values of the file
    scale: float = 1.0  # root mean square length of its vectors, in units of that of the vectors of tokens

    def __post_init__(self) -> None:
        check_types(self)
        require(self.path is None or bool(self.path), "path is empty; it names a folder of gene embeddings.")
        require(0.0 < self.scale < float("inf"), f"scale must be above 0, not {self.scale}.")


def with_gene_table(model: Any, config: GeneTableConfig) -> Any:
    """Return the configuration of a model with a table of gene vectors, if there is something to put into it.

    Raises
    ------
    InputError
        If there is, and models of this configuration have no such table.
    """
    if config.path is None:
        return model
    require(
        hasattr(model, "gene_spatial_embedding"),
        f"gene_embeddings.path is given, and a model of {type(model).__name__} has no table of gene vectors.",
    )
    return dataclasses.replace(model, gene_spatial_embedding=True)


def set_gene_table(
    model: Model[Any, Any], config: GeneTableConfig, *, read: bool = True, quiet: bool = False
) -> dict[str, Any] | None:
    """Give the table of gene vectors of a new model the values of gene embeddings.

    Vectors are turned into the width of the model by a fixed orthogonal matrix, which keeps all angles and spreads them
    over its channels; where they are longer, their first dimensions are. Genes are found by Ensembl id, else by name;
    those that have no vector, and tokens that are no genes, get zeros.

    Parameters
    ----------
    model
        A model with ``gene_spatial_embedding``; nothing is done where `config` has no path.
    config
        Which, how long, and whether it is trained.
    read
        False for a run that continues: the values come with its state, and the folder may be gone.
    quiet
        Do not log how many genes were found, as another process does.

    Returns
    -------
    dict or None
        What was read: ``path``, ``sha256``, ``dimensions``, ``n_genes`` of the model, ``n_found`` among them.

    Raises
    ------
    InputError
        If the folder cannot be used, or no gene of the model has a vector there.
    """
    if config.path is None:
        return None
    table = model.network.embedding.gene_spatial
    assert table is not None, "configurations switch the table on: with_gene_table"
    table.weight.requires_grad_(config.trainable)
    if not read:
        return None
    from spaf_train.gene_embedding import GeneEmbeddings, content_hash  # what counts transcripts takes time to import

    stored = GeneEmbeddings.load(config.path)
    embedded = np.flatnonzero(stored.vectors.any(axis=1))
    genes, gene_ids = (stored.genes[name].iloc[embedded].tolist() for name in ("gene", "gene_id"))
    tokens = model.vocabulary.look_up(genes, gene_ids).token_ids
    found = tokens >= 0
    known = model.vocabulary.gene_token_ids
    if not found.any():
        raise InputError(
            f"None of the {len(genes)} genes of {config.path} is among the {known.size} genes of the corpus; it has "
            f"genes like {', '.join(genes[:3])}, the corpus like "
            f"{', '.join(model.vocabulary.tokens[token] for token in known[:3])}."
        )
    vectors = _to_width(stored.vectors[embedded][found].astype(np.float64), model.config.width)
    weight = model.network.embedding.tokens.weight
    length = float(weight.detach()[torch.from_numpy(known)].pow(2).sum(dim=1).mean().sqrt())
    vectors *= config.scale * length / np.sqrt((vectors**2).sum(axis=1).mean())
    with torch.no_grad():
        table.weight.zero_()
        rows = torch.from_numpy(tokens[found]).to(table.weight.device)
        table.weight[rows] = torch.from_numpy(vectors).to(table.weight)
    n_found = int(found.sum())
    if not quiet:
        logger.log(
            logging.INFO if n_found == known.size else logging.WARNING,
            "%d of the %d genes of the corpus have a vector in %s; the others begin with zeros.",
            n_found,
            known.size,
            config.path,
        )
    return {
        "path": config.path,
        "sha256": content_hash(config.path),
        "dimensions": stored.dimensions,
        "n_genes": int(known.size),
        "n_found": n_found,
    }


def _to_width(vectors: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Turn vectors into a space of `width` dimensions; of longer ones the first dimensions."""
    kept = vectors[:, :width]
    basis, triangle = np.linalg.qr(np.random.default_rng(0).normal(size=(width, kept.shape[1])))
    turned: NDArray[np.float64] = kept @ (basis * np.sign(np.diag(triangle))).T
    return turned
