"""From embeddings of cells to labels: the head, its files, and prediction."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from spaf_model import InputError, check_key, load_model
from spaf_train._record import run_record

FORMAT_VERSION = 1
LABELS_FILE, WEIGHTS_FILE = "labels.json", "label_head.safetensors"
DEFAULT_KEY = "label_pred"


@dataclasses.dataclass(frozen=True)
class LabelHead:
    """A linear map from the embedding of a cell to its classes."""

    label: str  # the obs column that was learnt
    classes: tuple[str, ...]
    pooling: str  # the embedding it reads, one of `Model.methods`, such as cls or gene
    weight: NDArray[np.float32]  # (n_classes, D)
    bias: NDArray[np.float32]  # (n_classes,)

    @classmethod
    def from_logistic(cls, fitted: Any, *, label: str, classes: tuple[str, ...], pooling: str) -> LabelHead:
        """Turn a fitted pipeline of scaling and logistic regression into one linear map."""
        scaler, regression = fitted[0], fitted[-1]
        weight, bias = regression.coef_, regression.intercept_
        if len(classes) == 2:  # scikit-learn keeps the difference of the two
            weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
        weight = weight / scaler.scale_
        bias = bias - weight @ scaler.mean_
        return cls(label, classes, pooling, weight.astype(np.float32), bias.astype(np.float32))

    def probabilities(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability of each class, (n_cells, n_classes); NaN where the embedding is."""
        logits = np.asarray(embedding, dtype=np.float64) @ self.weight.T.astype(np.float64) + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def save(self, folder: Path) -> None:
        """Write ``labels.json`` and ``label_head.safetensors`` into a folder.

        Raises
        ------
        InputError
            If a weight is NaN or infinite.
        """
        if not self._is_finite():
            raise InputError(f"The head for {self.label!r} has weights that are NaN or infinite; it was not written.")
        content = {
            "format_version": FORMAT_VERSION,
            "label": self.label,
            "classes": list(self.classes),
            "pooling": self.pooling,
        }
        (folder / LABELS_FILE).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        save_file(
            {"weight": np.ascontiguousarray(self.weight), "bias": np.ascontiguousarray(self.bias)},
            folder / WEIGHTS_FILE,
        )
        (folder / WEIGHTS_FILE).chmod((folder / LABELS_FILE).stat().st_mode)

    @classmethod
    def load(cls, folder: str | Path) -> LabelHead:
        """Read the head of a model directory.

        Raises
        ------
        InputError
            If it has none, or the files are damaged, of a newer format, or do not fit each other.
        """
        folder = Path(folder)
        if not (folder / LABELS_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
            raise InputError(
                f"{folder} predicts no labels: it has no {LABELS_FILE} and {WEIGHTS_FILE}, which "
                "spaf-train finetune --task labels writes."
            )
        try:
            content = json.loads((folder / LABELS_FILE).read_text("utf-8"))
            number = int(content["format_version"])
            classes = tuple(str(name) for name in content["classes"])
            label = str(content["label"])
            pooling = content["pooling"]
            if not isinstance(pooling, str):
                raise ValueError(f"pooling {pooling!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / LABELS_FILE} is damaged: {error!r}.") from error
        if number > FORMAT_VERSION:
            raise InputError(
                f"{folder / LABELS_FILE} has format version {number}, and this spaf-train reads up to "
                f"{FORMAT_VERSION}: install a newer one."
            )
        try:
            tensors = load_file(folder / WEIGHTS_FILE)
        except SafetensorError as error:
            raise InputError(f"{folder / WEIGHTS_FILE} is damaged or truncated: {error}.") from error
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if set(shapes) != {"weight", "bias"} or shapes["bias"] != (len(classes),) or len(shapes["weight"]) != 2:
            raise InputError(f"{folder / WEIGHTS_FILE} does not fit the {len(classes)} classes of {LABELS_FILE}.")
        if shapes["weight"][0] != len(classes):
            raise InputError(f"{folder / WEIGHTS_FILE} does not fit the {len(classes)} classes of {LABELS_FILE}.")
        head = cls(label, classes, pooling, tensors["weight"], tensors["bias"])
        if not head._is_finite():
            raise InputError(f"{folder / WEIGHTS_FILE} cannot be used: it holds weights that are NaN or infinite.")
        return head

    def _is_finite(self) -> bool:
        return bool(np.isfinite(self.weight).all() and np.isfinite(self.bias).all())


def predict_labels(
    adata: anndata.AnnData,
    model_dir: str | Path,
    *,
    tissue: str | None = None,
    condition: str | None = None,
    species: str | None = None,
    assay: str | None = None,
    layer: str | None = None,
    key_added: str = DEFAULT_KEY,
    device: str = "cpu",
    progress: bool = False,
) -> None:
    """Predict the label of each cell with a model that was fine-tuned for it.

    Writes ``obs[key_added]`` (categorical; no value for cells without any gene of the model), the probability of that
    label in ``obs[key_added + "_probability"]``, those of all classes in ``obsm[key_added + "_probabilities"]`` with
    the names of the columns in ``uns[key_added]["classes"]``, and ``uns["spaf"]["predict_labels"]``.

    Parameters
    ----------
    adata
        Raw counts, cells x genes.
    model_dir
        What `finetune_labels` wrote.
    tissue, condition, species, assay, layer
        As for `spaf_model.Model.embed`.
    key_added
        Column of ``obs``.
    device
        Of the network.
    progress
        Show a bar on stderr where that is a terminal.

    Raises
    ------
    InputError
        If the model predicts no labels, and as for `spaf_model.Model.embed`.

    Examples
    --------
    ::

        from spaf_train import predict_labels

        predict_labels(adata, "models/cell-types", tissue="Breast")
        adata.obs["label_pred"]
    """
    started = time.perf_counter()
    head = LabelHead.load(model_dir)
    model = load_model(model_dir, device=device)
    if head.pooling not in model.methods:
        raise InputError(
            f"{Path(model_dir) / LABELS_FILE} is damaged: pooling {head.pooling!r} is none of "
            f"{', '.join(model.methods)}."
        )
    if head.weight.shape[1] != model.network.width:
        raise InputError(
            f"{model_dir}: the label head reads {head.weight.shape[1]} dimensions, and the model has others."
        )
    check_key(key_added)
    # Embedded in a table of its own, so that nothing but the labels is written.
    cells = anndata.AnnData(X=None if layer else adata.X, obs=adata.obs, var=adata.var)
    if layer is not None:
        if layer not in adata.layers:
            raise InputError(f"There is no layer {layer!r}; the layers are: {', '.join(adata.layers) or 'none'}.")
        cells.X = adata.layers[layer]
    model.embed(
        cells, method=head.pooling, tissue=tissue, condition=condition, species=species, assay=assay, key_added="X",
        progress=progress,
    )  # fmt: skip
    probabilities = head.probabilities(cells.obsm["X"])
    readable = np.isfinite(probabilities[:, 0])
    codes = np.where(readable, np.nan_to_num(probabilities).argmax(axis=1), -1).astype(np.int64)
    adata.obs[key_added] = pd.Categorical.from_codes(codes, categories=pd.Index(head.classes))
    adata.obs[f"{key_added}_probability"] = np.where(readable, probabilities.max(axis=1), np.nan)
    adata.obsm[f"{key_added}_probabilities"] = probabilities.astype(np.float32)
    parameters = {
        "model": str(model_dir), "tissue": tissue, "condition": condition, "species": species, "assay": assay,
        "layer": layer, "key_added": key_added, "device": device,
    }  # fmt: skip
    record = run_record(
        "spaf-train predict-labels",
        {name: value for name, value in parameters.items() if value is not None},
        started=started,
    )
    adata.uns[key_added] = {"label": head.label, "classes": np.array(head.classes, dtype=object)}
    adata.uns["spaf"] = {**adata.uns.get("spaf", {}), "predict_labels": record}
