"""Read a corpus: any block at random, checked."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from spaf_data.corpus.block import Block, decode_block
from spaf_data.corpus.manifest import Manifest
from spaf_data.corpus.measured import genes_of
from spaf_data.corpus.shard import SUFFIX, BlockRef, Shard, read_member, size_and_sha256
from spaf_data.corpus.sizes import BlockSize
from spaf_data.distances import Distances
from spaf_data.errors import InputError


class Corpus:
    """A corpus on a disk.

    Opening reads the manifest alone and checks that every shard is there. Blocks are read by their place, in any
    order, from any number of processes and threads: no file is kept open, so a corpus can be pickled and forked.

    Parameters
    ----------
    path
        Folder with ``manifest.json`` and the shards.
    check
        False opens a corpus of which shards are missing or cut short, to use the others: see `bad_shards`.

    Raises
    ------
    InputError
        If the folder is no finished corpus, the manifest is damaged or of a newer format version, or a shard is
        missing or has another size.

    Examples
    --------
    >>> corpus = Corpus("corpus")  # doctest: +SKIP
    >>> for ref in corpus.block_refs("train"):  # doctest: +SKIP
    ...     block = corpus.read(ref)
    ...     left, right = block.positive_pairs.T
    """

    def __init__(self, path: str | Path, *, check: bool = True):
        self.path = Path(path)
        self.manifest = Manifest.read(self.path)
        self._found_gene_pairs: dict[str, bool] = {}
        for shard in self.manifest.shards if check else ():
            self._check_size(shard)

    def __repr__(self) -> str:
        totals = self.manifest.totals()["all"]
        return (
            f"Corpus of {len(self.slides)} slides, {totals['cells']} cells, {len(self.genes)} genes, "
            f"{totals['pairs']} positive pairs in {totals['blocks']} blocks and {totals['shards']} shards"
        )

    @property
    def genes(self) -> list[str]:
        """Gene symbols; the codes in blocks are places in this list."""
        return self.manifest.genes

    @property
    def gene_ids(self) -> list[str] | None:
        """Ensembl ids in the order of ``genes``, empty where unknown; None if no slide had any."""
        return self.manifest.gene_ids

    @property
    def gene_statistics(self) -> pd.DataFrame:
        """Statistics of the training split, indexed by gene.

        ``n_cells`` and ``n_slides`` in which the gene is seen, ``nonzero_mean`` and ``nonzero_median`` of its counts
        there (NaN for a gene never seen).
        """
        return self.manifest.gene_statistics

    @property
    def slides(self) -> dict[str, dict[str, str]]:
        """For each slide its tissue, condition, species and assay."""
        return {name: dict(record["context"]) for name, record in self.manifest.slides.items()}

    def measured(self, slide: str) -> npt.NDArray[np.bool_]:
        """Return which genes a slide measures, (n_genes,).

        A gene that it does not measure is unknown there, where one that it measures and a cell does not have is zero.
        Corpora of earlier versions do not say it: there it is the genes that some cell of the slide has, or all where
        the slide has as many genes as the corpus.
        """
        record, n_genes = self.manifest.slides[slide], len(self.genes)
        if "measured" in record:
            return genes_of(record["measured"], n_genes)
        if int(record.get("n_genes", n_genes)) == n_genes:
            return np.ones(n_genes, dtype=bool)
        measured = np.zeros(n_genes, dtype=bool)
        for ref in self.block_refs():
            if ref.slide == slide:
                measured[self.read(ref).genes] = True
        return measured

    def knows_gene_pairs(self, slide: str) -> bool:
        """Return whether the blocks of a slide tell which genes are co-localised.

        A table without transcripts, or one written without gene pairs, says nothing of them: that its cells have none
        does not mean that no genes lie together.
        """
        stored = self.manifest.slides[slide].get("n_gene_pairs")
        if stored is not None:
            return int(stored) > 0
        # Early versions did not store it; the loader asks for every block of every batch, so blocks are read once.
        if slide not in self._found_gene_pairs:
            refs = (ref for ref in self.block_refs() if ref.slide == slide)
            self._found_gene_pairs[slide] = any(len(self.read(ref).colocalized) > 0 for ref in refs)
        return self._found_gene_pairs[slide]

    @property
    def splits(self) -> list[str]:
        """Names of the splits, sorted."""
        return sorted({shard.split for shard in self.manifest.shards})

    @property
    def parameters(self) -> dict[str, Any]:
        """Arguments that the corpus was written with, such as ``positive_radius``."""
        return dict(self.manifest.parameters)

    @property
    def distances(self) -> Distances:
        """At what distances cells are neighbours (the pairs of the blocks), hard negatives and easy negatives."""
        return self.manifest.distances

    def block_refs(self, split: str | None = None) -> list[BlockRef]:
        """Return the places of the blocks of a split, or of all, in a fixed order.

        Raises
        ------
        InputError
            If no cell of the corpus is in that split.
        """
        if split is not None and split not in self.splits:
            raise InputError(f"{self.path} has no split {split!r}; it has: {', '.join(self.splits)}.")
        return [ref for ref in self.manifest.block_refs() if split in (None, ref.split)]

    def read(self, ref: BlockRef) -> Block:
        """Read one block.

        Raises
        ------
        InputError
            If the bytes are not the block that the manifest describes.
        """
        with (self.path / ref.shard).open("rb") as file:
            data = read_member(file, ref)
        block = decode_block(data, size=BlockSize(n_cells=ref.n_cells, n_pairs=ref.n_pairs, n_genes=len(self.genes)))
        found = (block.key, block.slide, block.split, block.n_cells, block.n_owned, block.n_pairs)
        described = (ref.key, ref.slide, ref.split, ref.n_cells, ref.n_owned, ref.n_pairs)
        if found != described:
            raise InputError(f"block {ref.key} in shard {ref.shard} is not the one that the manifest describes.")
        for codes in (block.genes, block.colocalized):
            if codes.size and codes.max() >= len(self.genes):
                raise InputError(f"block {ref.key} in shard {ref.shard} names a gene that the corpus does not have.")
        return block

    def verify(self) -> None:
        """Read every byte of every shard and compare with the manifest.

        Raises
        ------
        InputError
            If a shard is missing, has other bytes, or has other members than the manifest says; it is named.
        """
        for shard in self.manifest.shards:
            self._verify_shard(shard)

    def bad_shards(self) -> dict[str, str]:
        """Read every byte of every shard and return, by name, what is wrong with those that `verify` would refuse."""
        bad = {}
        for shard in self.manifest.shards:
            try:
                self._verify_shard(shard)
            except (InputError, OSError) as error:
                bad[shard.name] = str(error)
        return bad

    def _verify_shard(self, shard: Shard) -> None:
        self._check_size(shard)
        if size_and_sha256(self.path / shard.name)[1] != shard.sha256:
            raise InputError(f"shard {shard.name} is damaged: its SHA-256 does not fit the manifest.")
        with tarfile.open(self.path / shard.name, mode="r:") as archive:
            members = archive.getnames()
        expected = [f"{ref.key}.{SUFFIX}" for ref in shard.blocks]
        if members != expected:
            stray = next((name for name in members if name not in set(expected)), "fewer members")
            raise InputError(f"shard {shard.name} holds {stray!r}, which the manifest does not describe.")

    def _check_size(self, shard: Shard) -> None:
        path = self.path / shard.name
        if not path.is_file():
            raise InputError(f"{self.path} lacks the shard {shard.name}.")
        if path.stat().st_size != shard.n_bytes:
            raise InputError(
                f"shard {shard.name} has {path.stat().st_size} bytes, but the manifest says {shard.n_bytes}."
            )
