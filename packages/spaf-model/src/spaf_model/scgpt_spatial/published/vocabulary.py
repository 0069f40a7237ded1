"""The published vocabulary, means and technologies: beside a checkpoint, or inside the parent's wheel."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_model.errors import InputError
from spaf_model.gene_identity import ensembl_id
from spaf_model.scgpt_spatial.tokeniser import TECHNOLOGY
from spaf_model.vocabulary import Vocabulary

SPECIAL = {"pad": "<pad>", "cls": "<cls>", "eoc": "<eoc>"}
WHEEL_MEMBER = "scgpt/tokenizer/default_census_vocab.json"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object in which no key stands twice.

    Raises
    ------
    InputError
        If it is none.
    """
    return _json_object(path.read_bytes(), source=path.name)


def read_ids(path: Path) -> dict[str, int]:
    """Read ``vocab.json``: the id of each token."""
    return _checked_ids(read_json(path), source=path.name)


def read_wheel_ids(wheel: Path) -> dict[str, int]:
    """Read the ids of the genes out of the parent's wheel, and give the special tokens the ids behind them.

    Raises
    ------
    InputError
        If the file is not a wheel that holds them.
    FileNotFoundError
        If there is no such file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if WHEEL_MEMBER not in archive.namelist():
                raise InputError(f"{wheel} is not a wheel of scgpt: it has no {WHEEL_MEMBER}.")
            content = archive.read(WHEEL_MEMBER)
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel} is not a wheel, or is damaged: {error}.") from error
    source = f"{wheel.name}:{WHEEL_MEMBER}"
    ids = _json_object(content, source=source)
    for token in SPECIAL.values():
        ids.setdefault(token, len(ids))
    return _checked_ids(ids, source=source)


def read_means(path: Path, n_tokens: int) -> dict[int, float]:
    """Read the population means of genes by token id.

    Raises
    ------
    InputError
        If it is no table of ids and means above 0, or an id is out of range or stands twice.
    """
    try:
        table = pd.read_csv(path, index_col=0)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' errors of parsing are ValueErrors
        raise InputError(f"{path.name} cannot be read as a table: {str(error).splitlines()[0]}") from error
    if "mean" not in table.columns:
        raise InputError(f"{path.name} has no column 'mean'; it has: {', '.join(map(str, table.columns)) or 'none'}.")
    ids = pd.to_numeric(pd.Series(table.index), errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~((ids >= 0) & (ids < n_tokens) & (ids == np.floor(ids))))
    if bad.size:
        raise InputError(f"{path.name} gives a mean to {str(table.index[bad[0]])!r}, which is no id below {n_tokens}.")
    if table.index.has_duplicates:
        raise InputError(f"{path.name} gives token {table.index[table.index.duplicated()][0]} more than one mean.")
    means = pd.to_numeric(table["mean"], errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(means) & (means > 0)))
    if bad.size:
        raise InputError(f"{path.name} gives token {table.index[bad[0]]} a mean that is not above 0.")
    return {int(token): float(mean) for token, mean in zip(ids, means, strict=True)}


def read_technologies(path: Path) -> list[str]:
    """Read the names of the technologies in the order of their numbers.

    Raises
    ------
    InputError
        If the numbers are not those from 0.
    """
    numbers = read_json(path)
    if not numbers or not all(type(number) is int for number in numbers.values()):
        raise InputError(f"{path.name} must hold a JSON object of technologies and their numbers.")
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise InputError(f"{path.name} must use each number from 0 to {len(numbers) - 1} once.")
    return sorted(numbers, key=numbers.__getitem__)


def read_gene_ids(path: Path) -> dict[str, str]:
    """Read which Ensembl id a symbol has: a table with ids and symbols, such as ``features.tsv.gz`` of 10x.

    The columns may be in any order and under any names, or none. A symbol with several ids has none.

    Raises
    ------
    InputError
        If the table has no column of Ensembl ids.
    """
    try:
        table = pd.read_csv(path, sep=None, engine="python", header=None, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error
    shares = [float(np.mean([bool(ensembl_id(value)) for value in table[column]])) for column in table.columns]
    if len(shares) < 2 or max(shares) < 0.5:
        raise InputError(f"{path} has no column of Ensembl ids beside one of symbols.")
    of_ids = int(np.argmax(shares))
    of_symbols = 1 if of_ids == 0 else 0
    found: dict[str, set[str]] = {}
    for symbol, gene in zip(table[of_symbols], table[of_ids], strict=True):
        if ensembl_id(gene):
            found.setdefault(symbol.strip(), set()).add(ensembl_id(gene))
    return {symbol: next(iter(ids)) for symbol, ids in found.items() if len(ids) == 1}


def make_vocabulary(
    ids: Mapping[str, int],
    *,
    means: Mapping[int, float],
    technologies: Sequence[str],
    gene_ids: Mapping[str, str] | None,
    pad: str,
    source: str,
) -> Vocabulary:
    """Put the parts together; every id is kept, and technologies have the ids behind the last.

    Raises
    ------
    InputError
        If a special token is missing.
    """
    special = {**SPECIAL, "pad": pad}
    absent = [special[name] for name in ("pad", "cls") if special[name] not in ids]
    if absent:
        raise InputError(f"{source} is not a vocabulary of scGPT: it has no token {absent[0]!r}.")
    names = sorted(ids, key=ids.__getitem__)
    of_technologies = [f"{TECHNOLOGY}:{name}" for name in technologies]
    scale: NDArray[np.float32] = np.ones(len(names) + len(technologies), dtype=np.float32)
    for token, mean in means.items():
        scale[token] = mean
    known = None if gene_ids is None else [gene_ids.get(name, "") for name in names] + [""] * len(technologies)
    return Vocabulary(
        [*names, *of_technologies],
        special={name: ids[token] for name, token in special.items() if token in ids},
        context={TECHNOLOGY: {name: len(names) + number for number, name in enumerate(technologies)}},
        scale=scale,
        gene_ids=known,
    )


def _json_object(content: bytes, *, source: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{source} has {twice!r} more than once.")
        return made

    try:
        found = json.loads(content, object_pairs_hook=once)
    except InputError:
        raise
    except ValueError as error:  # JSON and Unicode errors are both ValueErrors
        raise InputError(f"{source} is not valid JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{source} must hold a JSON object.")
    return found


def _checked_ids(ids: dict[str, Any], *, source: str) -> dict[str, int]:
    if not ids or not all(type(token) is int for token in ids.values()):
        raise InputError(f"{source} must hold a JSON object of tokens and their ids.")
    if sorted(ids.values()) != list(range(len(ids))):
        raise InputError(f"{source} must use each id from 0 to {len(ids) - 1} once.")
    return ids
