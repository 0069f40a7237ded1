"""The published vocabulary: token file and gene medians, beside a checkpoint or inside the published wheel."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spaf_model.errors import InputError
from spaf_model.spatialformer.published.gene_medians import read_gene_medians
from spaf_model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from spaf_model.spatialformer.config import PublishedVersion

_SPECIAL = {"pad": "<PAD>", "cls": "<CLS>", "mask": "<MASK>", "sep": "<SEP>"}
# The published file does not say what is a gene and what is not; these are its names of context. Both spellings of the
# lymph node have a token.
_CONTEXT = {
    "condition": ("Healthy", "Disease"),
    "tissue": (
        *("Lung", "Bone", "Brain", "Breast", "Cervix", "Colon", "Heart", "Liver", "Lymph Node", "Ovary"),
        *("Pancreas", "Prostate", "Skin", "Tonsil", "Kidney", "LymphNode", "BoneMarrow"),
    ),
    "species": ("Human", "Mouse"),
    "assay": ("Merfish", "Xenium", "CosMx"),
}
TOKEN_FILES = {"v1": "tokenv4.json", "v2": "tokenv5.json"}
MEDIANS_FILE = "gene_median.pkl"
_WHEEL_TOKENS = "spatialformer/tokenizer/"
_WHEEL_MEDIANS = f"spatialformer/data/{MEDIANS_FILE}"


def read_vocabulary(tokens: Path, scale: Path) -> Vocabulary:
    """Read the published token file and gene medians; every id is kept.

    Raises
    ------
    InputError
        If one of the files is not what it should be.
    FileNotFoundError
        If one of them is missing.
    """
    return _vocabulary(tokens.read_bytes(), scale.read_bytes(), tokens_source=tokens.name, medians_source=scale.name)


def read_wheel_vocabulary(wheel: Path, version: PublishedVersion) -> Vocabulary:
    """Read the token file of a version and the gene medians out of the published wheel; nothing is installed.

    Raises
    ------
    InputError
        If the file is not a wheel that holds them.
    FileNotFoundError
        If there is no such file.
    """
    member = _WHEEL_TOKENS + TOKEN_FILES[version]
    try:
        with zipfile.ZipFile(wheel) as archive:
            missing = [name for name in (member, _WHEEL_MEDIANS) if name not in archive.namelist()]
            if missing:
                raise InputError(f"{wheel} is not the published wheel of SpatialFormer: it has no {missing[0]}.")
            tokens, medians = archive.read(member), archive.read(_WHEEL_MEDIANS)
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel} is not a wheel, or is damaged: {error}.") from error
    return _vocabulary(
        tokens, medians, tokens_source=f"{wheel.name}:{member}", medians_source=f"{wheel.name}:{_WHEEL_MEDIANS}"
    )


def _vocabulary(tokens: bytes, medians: bytes, *, tokens_source: str, medians_source: str) -> Vocabulary:
    ids = _token_ids(tokens, source=tokens_source)
    median_of = read_gene_medians(medians, source=medians_source)
    names = sorted(ids, key=ids.__getitem__)
    context = {kind: {name: ids[name] for name in known if name in ids} for kind, known in _CONTEXT.items()}
    absent = [token for token in _SPECIAL.values() if token not in ids]
    absent += [f"token for a {kind}" for kind, known in context.items() if not known]
    if absent:
        raise InputError(f"{tokens_source} is not a published vocabulary: it has no {', '.join(absent)}.")
    not_genes = {*_SPECIAL.values(), *(name for known in context.values() for name in known)}
    # A gene without a median is ranked by its counts, as published.
    scale = np.array([1.0 if name in not_genes else median_of.get(name, 1.0) for name in names], dtype=np.float32)
    try:
        return Vocabulary(
            names, special={name: ids[token] for name, token in _SPECIAL.items()}, context=context, scale=scale
        )
    except InputError as error:
        raise InputError(f"{tokens_source} with {medians_source}: {error}") from error


def _token_ids(content: bytes, *, source: str) -> dict[str, int]:
    try:
        ids = json.loads(content)
    except ValueError as error:  # JSON and Unicode errors are both ValueErrors
        raise InputError(f"{source} is not valid JSON: {error}.") from error
    if not isinstance(ids, dict) or not all(type(token) is int for token in ids.values()):
        raise InputError(f"{source} must hold a JSON object of tokens and their ids.")
    if sorted(ids.values()) != list(range(len(ids))):
        raise InputError(f"{source} must use each id from 0 to {len(ids) - 1} once.")
    return ids
