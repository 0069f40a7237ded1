"""Vectors of genes from where their transcripts lie."""

from .factorisation import association, factorise
from .options import GeneEmbeddingOptions, Null
from .stored import GeneEmbeddings, content_hash
from .training import gene_embeddings, train_gene_embeddings

__all__ = [
    "GeneEmbeddingOptions",
    "GeneEmbeddings",
    "Null",
    "association",
    "content_hash",
    "factorise",
    "gene_embeddings",
    "train_gene_embeddings",
]
