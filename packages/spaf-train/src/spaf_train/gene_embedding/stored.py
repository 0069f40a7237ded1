"""Gene embeddings as a folder: ``embeddings.safetensors``, ``genes.csv`` and ``gene_embeddings.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from spaf_data import whole_folder
from spaf_model import InputError
from spaf_train._record import write_json

FORMAT_VERSION = 1
VECTORS_FILE, GENES_FILE, RECORD_FILE = "embeddings.safetensors", "genes.csv", "gene_embeddings.json"
_COLUMNS = ["gene", "gene_id", "n_transcripts", "embedded"]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class GeneEmbeddings:
    """Vectors of genes.

    Parameters
    ----------
    genes
        A row for each gene: ``gene`` (unique), ``gene_id`` (Ensembl id, "" where unknown), ``n_transcripts`` that it
        was judged by and whether it is ``embedded``; the vectors of others are 0.
    vectors
        float32, genes x dimensions, dimensions in descending importance.
    weights
        Eigenvalue of each dimension, float32: the association of two genes is about
        ``(a * np.sign(weights)) @ b`` for their vectors a and b.
    record
        How they were made.
    """

    genes: pd.DataFrame
    vectors: NDArray[np.float32]
    weights: NDArray[np.float32]
    record: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return int(self.vectors.shape[1])

    def association(self) -> NDArray[np.float32]:
        """Return the association of every two genes that the vectors stand for, genes x genes."""
        return (self.vectors * np.sign(self.weights)) @ self.vectors.T

    def save(self, path: str | Path) -> None:
        """Write the folder, whole or not at all; gene embeddings of that name are replaced.

        Raises
        ------
        InputError
            If `path` is something else than gene embeddings or an empty folder.
        """
        path = Path(path)
        check_out(path)
        with whole_folder(path) as new:
            self.genes[_COLUMNS].to_csv(new / GENES_FILE, index=False, lineterminator="\n")
            save_file({"vectors": self.vectors, "weights": self.weights}, new / VECTORS_FILE)
            # safetensors lets only the owner read its file.
            (new / VECTORS_FILE).chmod((new / GENES_FILE).stat().st_mode)
            write_json(new / RECORD_FILE, {"format_version": FORMAT_VERSION, **self.record})

    @classmethod
    def load(cls, path: str | Path) -> GeneEmbeddings:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If a file is missing or damaged, of a newer format, or the files do not belong together.
        """
        path = Path(path)
        if not path.is_dir():
            raise InputError(f"{path} is no folder of gene embeddings: there is no such folder.")
        missing = [name for name in (VECTORS_FILE, GENES_FILE, RECORD_FILE) if not (path / name).is_file()]
        if missing:
            raise InputError(f"{path} is no folder of gene embeddings: it has no {', '.join(missing)}.")
        record = _read_record(path / RECORD_FILE)
        tensors = _read_tensors(path / VECTORS_FILE)
        genes = _read_genes(path / GENES_FILE)
        vectors, weights = tensors["vectors"], tensors["weights"]
        if vectors.ndim != 2 or vectors.shape != (len(genes), weights.size):
            raise InputError(
                f"{path}: {VECTORS_FILE} has vectors of shape {vectors.shape} and {weights.size} weights, for the "
                f"{len(genes)} genes of {GENES_FILE}."
            )
        if not (np.isfinite(vectors).all() and np.isfinite(weights).all()):
            raise InputError(f"{path / VECTORS_FILE} holds NaN or infinite values.")
        return cls(genes=genes, vectors=vectors, weights=weights, record=record)


def check_out(path: Path) -> None:
    """Raise `InputError` unless gene embeddings can be written there."""
    if path.exists() and not (path.is_dir() and ((path / RECORD_FILE).is_file() or not any(path.iterdir()))):
        raise InputError(f"{path} exists and is no folder of gene embeddings; nothing was written.")


def content_hash(path: str | Path) -> str:
    """Return the SHA-256 of the genes and vectors of a folder of gene embeddings."""
    digest = hashlib.sha256()
    for name in (GENES_FILE, VECTORS_FILE):
        digest.update(hashlib.sha256((Path(path) / name).read_bytes()).digest())
    return digest.hexdigest()


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    version = record.get("format_version") if isinstance(record, dict) else None
    if not isinstance(version, int):
        raise InputError(f"{path} has no format_version.")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}, and this spaf-train reads up to {FORMAT_VERSION}: install a newer "
            "one."
        )
    return {name: value for name, value in record.items() if name != "format_version"}


def _read_tensors(path: Path) -> Mapping[str, NDArray[np.float32]]:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or truncated: {error}.") from error
    for name in ("vectors", "weights"):
        if name not in tensors or tensors[name].dtype != np.float32:
            raise InputError(f"{path} has no float32 tensor {name!r}; it has: {', '.join(tensors) or 'none'}.")
    return tensors


def _read_genes(path: Path) -> pd.DataFrame:
    text = {"gene": str, "gene_id": str}
    try:
        genes = pd.read_csv(path, dtype=text, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as CSV: {str(error).splitlines()[0]}.") from error
    missing = [name for name in _COLUMNS if name not in genes]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; it has: {', '.join(map(str, genes.columns))}.")
    if genes["gene"].duplicated().any():
        raise InputError(f"{path} has the gene {genes['gene'][genes['gene'].duplicated()].iloc[0]!r} twice.")
    return genes[_COLUMNS]
