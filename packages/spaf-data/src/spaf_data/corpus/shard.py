"""Shards: tar files in the convention of webdataset, one member a block.

They are written with the standard library instead of ``webdataset.TarWriter``, because reading one block at random
needs the place of each member, which that writer does not tell, and because importing webdataset takes seconds
wherever PyTorch is installed. Members have no time and no owner, so equal blocks give equal bytes.
"""

import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from spaf_data.corpus.block import Block, encode_block
from spaf_data.corpus.files import whole_file
from spaf_data.errors import InputError

SUFFIX = "block"
# webdataset takes the name of a sample up to the first dot, and ustar holds 100 bytes.
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,90}")


@dataclass(frozen=True, kw_only=True)
class BlockRef:
    """Where a block lies and how large it is."""

    key: str  # name of the block
    shard: str  # file name of its shard
    slide: str
    split: str
    n_cells: int  # halo included
    n_owned: int
    n_pairs: int
    offset: int  # of its bytes in the shard
    size: int  # bytes
    crc32: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A shard that was written."""

    name: str
    slide: str
    split: str
    n_bytes: int
    sha256: str
    blocks: tuple[BlockRef, ...]


def is_safe_name(name: str) -> bool:
    """Tell whether a name may be the stem of a shard or of a member: letters, digits, ``-`` and ``_`` only."""
    return _SAFE_NAME.fullmatch(name) is not None


def safe_name(name: str, taken: Iterable[str] = ()) -> str:
    """Return a file name for a slide, with a hash behind it where characters were replaced or it is taken."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:48]
    # Some file systems do not tell capitals apart.
    if safe != name or safe.lower() in {other.lower() for other in taken}:
        safe = f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
    return safe


def write_shard(path: Path, slide: str, split: str, blocks: Iterable[Block]) -> Shard:
    """Write blocks of one slide and split as a tar file, under its name only when it is complete."""
    refs = []
    with whole_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for block in blocks:
            data = encode_block(block)
            member = tarfile.TarInfo(f"{block.key}.{SUFFIX}")
            member.size = len(data)
            member.mode = 0o444
            archive.addfile(member, io.BytesIO(data))
            refs.append(
                BlockRef(
                    key=block.key,
                    shard=path.name,
                    slide=slide,
                    split=split,
                    n_cells=block.n_cells,
                    n_owned=block.n_owned,
                    n_pairs=block.n_pairs,
                    offset=archive.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE,
                    size=len(data),
                    crc32=zlib.crc32(data),
                )
            )
    n_bytes, sha256 = size_and_sha256(path)
    return Shard(name=path.name, slide=slide, split=split, n_bytes=n_bytes, sha256=sha256, blocks=tuple(refs))


def read_member(file: IO[bytes], ref: BlockRef) -> bytes:
    """Return the bytes of a block from an open shard.

    Raises
    ------
    InputError
        If the tar member there has another name or the bytes do not fit the checksum.
    """
    file.seek(ref.offset - tarfile.BLOCKSIZE)
    header = file.read(tarfile.BLOCKSIZE)
    data = file.read(ref.size)
    try:
        name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
    except tarfile.HeaderError as error:
        raise InputError(f"shard {ref.shard} holds no tar member where block {ref.key} should be.") from error
    if name != f"{ref.key}.{SUFFIX}":
        raise InputError(f"shard {ref.shard} holds a member {name!r} where block {ref.key} should be.")
    if len(data) != ref.size or zlib.crc32(data) != ref.crc32:
        raise InputError(f"block {ref.key} in shard {ref.shard} is damaged: its checksum does not fit.")
    return data


def size_and_sha256(path: Path) -> tuple[int, str]:
    """Return the size in bytes and the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()
