"""Feature-barcode matrices of 10x Genomics: the HDF5 file and the folder of three gzipped text files."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy import io, sparse

from spaf_data.errors import InputError

_GENES = "Gene Expression"
_CONTROL_KINDS = frozenset(
    {
        "Negative Control Probe",
        "Negative Control Codeword",
        "Genomic Control",
        "Unassigned Codeword",
        "Deprecated Codeword",
        "Blank Codeword",
    }
)


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureMatrix:
    """Counts of genes and controls; other kinds of features (antibodies, guides) are left out."""

    counts: sparse.csr_matrix  # barcodes x features
    barcodes: np.ndarray
    names: list[str]
    ids: list[str]
    control: np.ndarray  # which features are controls
    genome: str | None


def find_matrix(folder: Path, stem: str = "filtered_feature_bc_matrix") -> Path | None:
    """Return the matrix of a folder, as one file or a folder of three; None without one."""
    files = [folder / f"{stem}.h5", *sorted(folder.glob(f"*_{stem}.h5")), folder / stem]
    return next((file for file in files if file.exists()), None)


def read_matrix(path: Path) -> FeatureMatrix:
    """Read a matrix.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another shape, or there is no gene.
    """
    try:
        return _read_folder(path) if path.is_dir() else _read_h5(path)
    except (KeyError, ValueError, EOFError, zlib.error, IndexError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a 10x feature-barcode matrix: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise InputError(f"{path} cannot be read as a 10x feature-barcode matrix: {error}") from error


def _read_h5(file: Path) -> FeatureMatrix:
    with h5py.File(file, "r") as store:
        if "matrix" not in store:
            raise KeyError("it has no group 'matrix'")
        group: Any = store["matrix"]
        n_features, n_barcodes = (int(size) for size in group["shape"][:])
        counts = sparse.csr_matrix(
            (group["data"][:], group["indices"][:], group["indptr"][:]), shape=(n_barcodes, n_features)
        )
        features = group["features"]
        text = {name: _text(features[name][:]) for name in ("id", "name", "feature_type", "genome") if name in features}
        barcodes = np.array(_text(group["barcodes"][:]), dtype=str)
    kinds = text.get("feature_type", [_GENES] * n_features)
    return _choose(counts, barcodes, text["name"], text["id"], kinds, text.get("genome"))


def _text(values: np.ndarray) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _read_folder(folder: Path) -> FeatureMatrix:
    def file(*names: str) -> Path:
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is None:
            raise InputError(f"{folder} has no {names[0]}")
        return found

    matrix = file("matrix.mtx.gz", "matrix.mtx")
    counts = sparse.csr_matrix(io.mmread(matrix).T)  # which unpacks gzip by itself
    features = pd.read_csv(
        file("features.tsv.gz", "features.tsv", "genes.tsv"), sep="\t", header=None, dtype=str, keep_default_na=False
    )
    barcodes = pd.read_csv(file("barcodes.tsv.gz", "barcodes.tsv"), header=None, dtype=str, keep_default_na=False)[0]
    if counts.shape != (len(barcodes), len(features)):
        raise ValueError(
            f"the matrix has {counts.shape[1]} features and {counts.shape[0]} barcodes, the lists "
            f"{len(features)} and {len(barcodes)}"
        )
    kinds = features[2].tolist() if features.shape[1] > 2 else [_GENES] * len(features)
    return _choose(counts, barcodes.to_numpy(dtype=str), features[1].tolist(), features[0].tolist(), kinds, None)


def _choose(
    counts: sparse.csr_matrix,
    barcodes: np.ndarray,
    names: list[str],
    ids: list[str],
    kinds: list[str],
    genomes: list[str] | None,
) -> FeatureMatrix:
    control = np.array([kind in _CONTROL_KINDS for kind in kinds], bool)
    genes = np.array([kind == _GENES for kind in kinds], bool)
    if not genes.any():
        raise ValueError(f"it has no feature of the type {_GENES!r}")
    taken = np.flatnonzero(genes | control)
    found = {genomes[i] for i in np.flatnonzero(genes)} if genomes is not None else set()
    return FeatureMatrix(
        counts=counts[:, taken],
        barcodes=barcodes,
        names=[names[i] for i in taken],
        ids=[ids[i] for i in taken],
        control=control[taken],
        genome=found.pop() if len(found) == 1 else None,
    )
