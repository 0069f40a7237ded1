"""``manifest.json``: what a corpus holds, and how to tell that it is whole.

It is written last, so a folder with a manifest is a finished corpus. The field ``checksum`` is the SHA-256 of
everything else in it. Nothing in it depends on time, machine or the order of rows.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from spaf_data.corpus.files import whole_file
from spaf_data.corpus.shard import BlockRef, Shard, is_safe_name
from spaf_data.distances import Distances
from spaf_data.errors import InputError

NAME = "manifest.json"
FORMAT = "spaf-corpus"
FORMAT_VERSION = 1
_STATISTICS = ("n_cells", "n_slides", "nonzero_mean", "nonzero_median")


@dataclass(frozen=True, eq=False, kw_only=True)
class Manifest:
    """Contents of a corpus: genes, slides, shards, parameters.

    Attributes
    ----------
    parameters
        Arguments that the corpus was written with.
    distances
        At what distances cells of the corpus are neighbours, hard negatives and easy negatives. Not stored by versions
        of before, which knew the radius alone: see `Distances.of_manifest`.
    versions
        Versions of the software that wrote it.
    genes, gene_ids
        Gene symbols in the order of their codes, and Ensembl ids (empty where unknown) or None.
    gene_statistics
        Table indexed by gene, over the training split: see `spaf_data.GeneStatistics.to_frame`.
    slides
        For each slide its ``context`` (tissue, condition, species, assay), ``n_genes``, ``measured`` (which those are:
        runs of codes, `spaf_data.corpus.measured`; not stored by versions of before), ``n_gene_pairs`` that are
        co-localised in some cell (0 where nothing is known of them) and ``fingerprint``, a SHA-256 of the contents it
        was built from.
    shards
        Shards in the order of slides, splits and numbers.
    """

    parameters: dict[str, Any]
    distances: Distances
    versions: dict[str, str]
    genes: list[str]
    gene_ids: list[str] | None
    gene_statistics: pd.DataFrame
    slides: dict[str, dict[str, Any]]
    shards: tuple[Shard, ...]

    def block_refs(self) -> Iterator[BlockRef]:
        """Iterate over all blocks, in the order of the shards."""
        for shard in self.shards:
            yield from shard.blocks

    def totals(self) -> dict[str, dict[str, int]]:
        """Return the numbers of shards, bytes, blocks, cells and positive pairs of each split, and of ``all``."""
        totals: dict[str, dict[str, int]] = {}
        for shard in self.shards:
            for split in (shard.split, "all"):
                count = totals.setdefault(split, dict.fromkeys(("shards", "bytes", "blocks", "cells", "pairs"), 0))
                count["shards"] += 1
                count["bytes"] += shard.n_bytes
                count["blocks"] += len(shard.blocks)
                count["cells"] += sum(ref.n_owned for ref in shard.blocks)
                count["pairs"] += sum(ref.n_pairs for ref in shard.blocks)
        return totals

    def as_dict(self) -> dict[str, Any]:
        """Return the manifest as it is stored, without its checksum."""
        genes: dict[str, Any] = {"symbol": self.genes, "gene_id": self.gene_ids}
        for column in _STATISTICS:
            # JSON has no NaN.
            genes[column] = [None if pd.isna(value) else value for value in self.gene_statistics[column].tolist()]
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "versions": self.versions,
            "parameters": self.parameters,
            "distances": asdict(self.distances),
            "totals": self.totals(),
            "slides": self.slides,
            "shards": [shard_as_dict(shard) for shard in self.shards],
            "genes": genes,
        }

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, whole or not at all."""
        contents = self.as_dict()
        contents["checksum"] = _checksum(contents)
        with whole_file(folder / NAME) as file:
            file.write(json.dumps(contents, indent=1, ensure_ascii=False).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read and check the manifest of a corpus.

        Raises
        ------
        InputError
            If there is none, it is damaged, of a newer format version, or names files outside the corpus.
        """
        path = folder / NAME
        if not path.is_file():
            raise InputError(f"{folder} is no finished corpus: it has no {NAME}.")
        try:
            contents = json.loads(path.read_bytes())
        except ValueError as error:
            raise InputError(f"{path} is damaged: it is not valid JSON ({error}).") from error
        if not isinstance(contents, dict) or contents.get("format") != FORMAT:
            raise InputError(f"{path} is not the manifest of a corpus.")
        version = contents.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise InputError(
                f"{path} has format version {version}, and this version of spaf-data reads up to {FORMAT_VERSION}: "
                "install a newer one."
            )
        if contents.pop("checksum", None) != _checksum(contents):
            raise InputError(f"{path} is damaged: its checksum does not fit.")
        genes = contents["genes"]
        index = pd.Index(genes["symbol"], name="gene", dtype=object)
        statistics = pd.DataFrame({column: genes[column] for column in _STATISTICS}, index=index)
        types = dict(zip(_STATISTICS, ("int64", "int64", "float64", "float64"), strict=True))
        return cls(
            parameters=contents["parameters"],
            distances=Distances.of_manifest(
                contents.get("distances"), contents["parameters"].get("positive_radius", Distances().positive)
            ),
            versions=contents["versions"],
            genes=genes["symbol"],
            gene_ids=genes["gene_id"],
            gene_statistics=statistics.astype(types),
            slides=contents["slides"],
            shards=tuple(shard_from_dict(shard) for shard in contents["shards"]),
        )


def shard_as_dict(shard: Shard) -> dict[str, Any]:
    """Return a shard as it is stored in JSON; what its blocks share is stored once."""
    fields = asdict(shard)
    for block in fields["blocks"]:
        for shared in ("shard", "slide", "split"):
            del block[shared]
    return fields


def shard_from_dict(fields: dict[str, Any]) -> Shard:
    """Return the shard that :func:`shard_as_dict` described.

    Raises
    ------
    InputError
        If a file or member has a name that could lead out of the corpus.
    """
    name = fields["name"]
    for stem in (name.removesuffix(".tar"), *(block["key"] for block in fields["blocks"])):
        if not is_safe_name(stem) or not name.endswith(".tar"):
            raise InputError(f"{NAME} names {stem!r} in shard {name!r}, which is not a name that a corpus uses.")
    shared = {"shard": name, "slide": fields["slide"], "split": fields["split"]}
    return Shard(**{**fields, "blocks": tuple(BlockRef(**block, **shared) for block in fields["blocks"])})


def _checksum(contents: dict[str, Any]) -> str:
    text = json.dumps(contents, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
