"""Vectors of genes from where their transcripts lie; `spaf_train.gene_table` starts a model from them."""

from spaf_train.gene_embedding.factorisation import association, factorise
from spaf_train.gene_embedding.options import GeneEmbeddingOptions, Null
from spaf_train.gene_embedding.stored import GeneEmbeddings, content_hash
from spaf_train.gene_embedding.training import gene_embeddings, train_gene_embeddings

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
