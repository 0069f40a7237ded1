"""From embeddings of cells to labels: the head, its files, and prediction."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from spaf_model import InputError, check_key, load_model, model_path
from spaf_train._record import run_record
from spaf_train.evaluation.log_counts import LogCounts

if TYPE_CHECKING:
    from spaf_train.evaluation.probing import Probe

FORMAT_VERSION = 2  # 1: the embedding alone is read
LABELS_FILE, WEIGHTS_FILE = "labels.json", "label_head.safetensors"
DEFAULT_KEY = "label_pred"


@dataclasses.dataclass(frozen=True, eq=False)
class LabelHead:
    """A linear map from the embedding of a cell, its log counts, or both side by side, to its classes."""

    label: str  # the obs column that was learnt
    classes: tuple[str, ...]
    pooling: str  # the embedding it reads, by a method of the model, such as cls or gene
    weight: NDArray[np.float32]  # (n_classes, D + n_genes)
    bias: NDArray[np.float32]  # (n_classes,)
    counts: LogCounts | None = None  # None: no counts are read

    @classmethod
    def from_probe(
        cls, probe: Probe, *, label: str, classes: tuple[str, ...], pooling: str, counts: LogCounts | None
    ) -> LabelHead:
        """Turn centring, scaling and regression into one linear map."""
        weight = probe.weight * probe.scale
        bias = probe.bias - weight @ probe.mean
        return cls(label, classes, pooling, weight.astype(np.float32), bias.astype(np.float32), counts)

    @property
    def n_embedding(self) -> int:
        """Dimensions of the embedding that are read; 0 for a head on counts alone."""
        return int(self.weight.shape[1]) - (0 if self.counts is None else len(self.counts.genes))

    def features(
        self, embedding: NDArray[np.floating] | None, log_counts: NDArray[np.floating] | None
    ) -> NDArray[np.floating]:
        """Put side by side what is read, (n_cells, D + n_genes); rows of NaN for cells that cannot be read."""
        if not self.n_embedding:
            assert log_counts is not None, "nothing else is read"
            return log_counts
        assert embedding is not None, "it is read"
        return embedding if log_counts is None else side_by_side(embedding, log_counts)

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability of each class, (n_cells, n_classes); NaN where the features are."""
        logits = np.asarray(features, dtype=np.float64) @ self.weight.T.astype(np.float64) + self.bias
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
        content: dict[str, Any] = {
            "format_version": 1 if self.counts is None else FORMAT_VERSION,
            "label": self.label,
            "classes": list(self.classes),
            "pooling": self.pooling,
        }
        tensors = {"weight": self.weight, "bias": self.bias}
        if self.counts is not None:
            known = self.counts
            content["counts"] = {"genes": known.genes, "gene_ids": known.gene_ids, "depth": known.depth}
            tensors |= {"counts_share": known.share, "counts_mean": known.mean}
        (folder / LABELS_FILE).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        save_file(
            {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()},
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
        folder = model_path(folder)
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
                raise TypeError(f"pooling {pooling!r}")
            counts = None if "counts" not in content else _counts_of(content["counts"])
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
        wanted = {"weight", "bias"} | ({"counts_share", "counts_mean"} if counts is not None else set())
        weight = shapes.get("weight", ())
        if set(shapes) != wanted or shapes["bias"] != (len(classes),) or len(weight) != 2 or weight[0] != len(classes):
            raise InputError(f"{folder / WEIGHTS_FILE} does not fit the {len(classes)} classes of {LABELS_FILE}.")
        if counts is not None:
            n_genes = len(counts.genes)
            of_counts = {shapes["counts_share"], shapes["counts_mean"], (len(counts.gene_ids),)}
            if of_counts != {(n_genes,)} or weight[1] < n_genes:
                raise InputError(f"{folder / WEIGHTS_FILE} does not fit the {n_genes} genes of {LABELS_FILE}.")
            counts = dataclasses.replace(counts, share=tensors["counts_share"], mean=tensors["counts_mean"])
        head = cls(label, classes, pooling, tensors["weight"], tensors["bias"], counts)
        if not head._is_finite():
            raise InputError(f"{folder / WEIGHTS_FILE} cannot be used: it holds weights that are NaN or infinite.")
        return head

    def _is_finite(self) -> bool:
        values = [self.weight, self.bias]
        if self.counts is not None:
            values += [self.counts.share, self.counts.mean, np.array([self.counts.depth])]
        return all(bool(np.isfinite(value).all()) for value in values)


def _counts_of(table: dict[str, Any]) -> LogCounts:
    """Return what the JSON file says of the counts."""
    genes, ids = (tuple(map(str, table[name])) for name in ("genes", "gene_ids"))
    nothing = np.zeros(0, dtype=np.float32)
    return LogCounts(genes, ids, float(table["depth"]), share=nothing, mean=nothing)


def side_by_side(embedding: NDArray[np.floating], log_counts: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return what a head on both reads, (n_cells, D + n_genes); a cell that the model reads may lack the genes."""
    return np.concatenate([embedding, np.nan_to_num(log_counts)], axis=1)


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
        If the model predicts no labels, and as for `Model.embed`.

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
            f"{model_path(model_dir) / LABELS_FILE} is damaged: pooling {head.pooling!r} is none of "
            f"{', '.join(model.methods)}."
        )
    check_key(key_added)
    # Embedded in a table of its own, so that nothing but the labels is written.
    cells = anndata.AnnData(X=None if layer else adata.X, obs=adata.obs, var=adata.var)
    if layer is not None:
        if layer not in adata.layers:
            raise InputError(f"There is no layer {layer!r}; the layers are: {', '.join(adata.layers) or 'none'}.")
        cells.X = adata.layers[layer]
    embedding = None
    if head.n_embedding:
        model.embed(
            cells, method=head.pooling, tissue=tissue, condition=condition, species=species, assay=assay,
            key_added="X", progress=progress,
        )  # fmt: skip
        embedding = cells.obsm["X"]
        if head.n_embedding != embedding.shape[1]:
            raise InputError(
                f"{model_dir}: the label head reads {head.n_embedding} dimensions, and the model has "
                f"{embedding.shape[1]}."
            )
    probabilities = head.probabilities(head.features(embedding, None if head.counts is None else head.counts.of(cells)))
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
