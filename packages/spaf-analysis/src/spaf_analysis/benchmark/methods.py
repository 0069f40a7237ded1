"""Where an embedding comes from: a model, `obsm`, a model fitted on the data themselves, or random weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
from numpy.typing import NDArray

from spaf_analysis.benchmark.base import Method
from spaf_analysis.errors import InputError
from spaf_analysis.metrics import random_twin
from spaf_analysis.tables import embedding_of, loaded
from spaf_model import TissueModel, shipped_models
from spaf_train.finetuning import comparable_pooling

if TYPE_CHECKING:
    from spaf_analysis.benchmark.data import Data
    from spaf_model import Model

PRESETS = ("tissue", "neighbours")
_WEIGHTS = ("config.json", "vocabulary.json", "model.safetensors")


class OfModel(Method):
    """A model directory, or a model that comes with spaf-model by its name."""

    option = "model"

    @property
    def place(self) -> str | Path:
        """What `load_model` takes: a shipped name goes before a folder of that name."""
        return self.value if self.value in shipped_models() else Path(self.value)

    def check(self, data: Data) -> None:
        """Raise InputError where there is no such model."""
        if isinstance(self.place, Path) and not all((data.folder / self.place / name).is_file() for name in _WEIGHTS):
            raise InputError(
                f"method {self.name!r}: there is no model directory at {data.folder / self.place}; these come with "
                f"spaf-model: {', '.join(shipped_models()) or 'none'}."
            )

    def model(self, data: Data) -> Model[Any, Any]:
        """Read it."""
        return loaded(self.place if isinstance(self.place, str) else data.folder / self.place)

    def embed(self, data: Data, learn_from: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Embed all cells; nothing is learnt from them."""
        every = np.arange(data.table.n_obs)
        return data.once((self.option, self.value), lambda: embedding_of(self.model(data), data.table, every))

    def embed_beside(self, data: Data) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Embed both tables by the method whose axes are those of the model."""
        assert data.reference is not None, "asked for by who has one"
        model = self.model(data)
        how = comparable_pooling(model, None)
        made = [
            embedding_of(model, table, np.arange(table.n_obs), method=how) for table in (data.table, data.reference)
        ]
        return made[0], made[1]

    def identity(self, data: Data) -> dict[str, Any]:
        """Return the bytes of the weights; of a shipped model the name says which they are."""
        if isinstance(self.place, str):
            return {self.option: self.value}
        digest = hashlib.sha256()
        for name in _WEIGHTS:
            with (data.folder / self.place / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return {self.option: digest.hexdigest()}


class RandomTwin(OfModel):
    """The same architecture with random weights: what input and architecture alone are worth."""

    option = "random"

    def model(self, data: Data) -> Model[Any, Any]:
        """Read the model and draw its weights anew."""
        return random_twin(super().model(data))


class InObsm(Method):
    """An embedding that the data hold in `obsm`, of whatever model."""

    option = "key"

    def check(self, data: Data) -> None:
        """Raise InputError where the data have no such embedding."""
        if self.value not in data.table.obsm:
            raise InputError(
                f"method {self.name!r}: obsm of data set {data.name!r} has no embedding {self.value!r}; it has: "
                f"{', '.join(data.table.obsm) or 'nothing'}."
            )

    def embed(self, data: Data, learn_from: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return it."""
        return np.asarray(data.table.obsm[self.value], dtype=np.float64)

    def embed_beside(self, data: Data) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what both tables hold."""
        assert data.reference is not None, "asked for by who has one"
        if self.value not in data.reference.obsm:
            raise InputError(f"method {self.name!r}: obsm of the reference has no embedding {self.value!r}.")
        return self.embed(data), np.asarray(data.reference.obsm[self.value], dtype=np.float64)


class OwnTissue(Method):
    """The own-tissue model of a preset, fitted on the counts and places of the data; it sees no label.

    A task that judges places gives it the training cells alone.
    """

    option = "fit"

    def check(self, data: Data) -> None:
        """Raise InputError where there is no such preset."""
        if self.value not in PRESETS:
            raise InputError(f"method {self.name!r}: fit must be one of {', '.join(PRESETS)}, not {self.value!r}.")

    def embed(self, data: Data, learn_from: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Fit, then embed all cells."""

        def make() -> NDArray[np.float64]:
            known = data.table if learn_from is None else data.taken(learn_from)
            model = TissueModel.fit(known, self.value)  # type: ignore[arg-type]
            every = anndata.AnnData(data.table.X, obs=data.table.obs, var=data.table.var, obsm=dict(data.table.obsm))
            model.embed(every, key_added="X")
            return np.asarray(every.obsm["X"], dtype=np.float64)

        return data.once((self.option, self.value, None if learn_from is None else learn_from.tobytes()), make)
