"""The scGPT-spatial model as users meet it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from spaf_model.errors import InputError
from spaf_model.model import Model
from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig
from spaf_model.scgpt_spatial.network import ScGPTSpatialNetwork
from spaf_model.scgpt_spatial.tokeniser import (
    SPECIAL_TOKENS,
    ScGPTSpatialTokeniser,
    n_table_rows,
    technology_names,
)

if TYPE_CHECKING:
    from spaf_model.vocabulary import Vocabulary


class ScGPTSpatial(Model[ScGPTSpatialConfig, ScGPTSpatialNetwork]):
    """A scGPT-spatial model with its vocabulary.

    Embeddings need nothing but counts: the technology of a cell (context ``assay``) is read by the decoders alone.

    Parameters
    ----------
    config
        Sizes; what follows from the vocabulary may be None.
    vocabulary
        Meaning of the token ids. Its scale holds the population means of genes, and its assays are the technologies.
    seed
        Of the random weights; the global random state is left as it was.

    Raises
    ------
    InputError
        If configuration and vocabulary do not fit together, or the vocabulary lacks a special token.

    Examples
    --------
    Embed the cells of a slide::

        model = ScGPTSpatial.from_pretrained("my-model")
        model.embed(adata)
        adata.obsm["X_SpaF"]
    """

    family = "scgpt_spatial"
    Config = ScGPTSpatialConfig
    methods = ("cls", "gene", "value")
    needed_context = ()

    @classmethod
    def fitting_config(cls, config: ScGPTSpatialConfig, vocabulary: Vocabulary) -> ScGPTSpatialConfig:
        """Return the configuration with the numbers of tokens and technologies of the vocabulary."""
        for name in SPECIAL_TOKENS:
            vocabulary.special_id(name)
        found = {"n_tokens": n_table_rows(vocabulary), "n_technologies": len(technology_names(vocabulary))}
        for name, n in found.items():
            if getattr(config, name) not in (None, n):
                raise InputError(f"config.{name} is {getattr(config, name)}, but the vocabulary has {n}.")
        return dataclasses.replace(config, n_tokens=found["n_tokens"], n_technologies=found["n_technologies"])

    def make_network(self) -> ScGPTSpatialNetwork:
        """Make the network of the configuration, with random weights."""
        return ScGPTSpatialNetwork(self.config)

    @property
    def tokeniser(self) -> ScGPTSpatialTokeniser:
        """What makes values of counts, and batches of cells."""
        return ScGPTSpatialTokeniser(self.vocabulary, self.config)
