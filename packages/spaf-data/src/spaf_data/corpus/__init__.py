"""The corpus: blocks of neighbouring cells in shards, described by a manifest."""

from spaf_data.corpus.block import Block, decode_block, encode_block
from spaf_data.corpus.manifest import Manifest
from spaf_data.corpus.reader import Corpus
from spaf_data.corpus.remote import stream_blocks
from spaf_data.corpus.shard import BlockRef, Shard
from spaf_data.corpus.writer import write_corpus

__all__ = [
    "Block",
    "BlockRef",
    "Corpus",
    "Manifest",
    "Shard",
    "decode_block",
    "encode_block",
    "stream_blocks",
    "write_corpus",
]
