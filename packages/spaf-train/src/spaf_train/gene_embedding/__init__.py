"""Vectors of genes from where their transcripts lie; `spaf_train.pretraining.gene_table` starts a model from them.

The public names are in ``__init__.pyi``, and each is imported when it is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
