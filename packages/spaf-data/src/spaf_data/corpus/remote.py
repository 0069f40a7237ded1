"""Read blocks from anywhere webdataset reads from."""

from collections.abc import Iterator, Sequence
from itertools import chain

from spaf_data.corpus.block import Block, decode_block
from spaf_data.corpus.shard import SUFFIX, is_safe_name
from spaf_data.errors import InputError


def stream_blocks(urls: str | Sequence[str]) -> Iterator[Block]:
    """Iterate over the blocks of shards in order, without the manifest.

    Parameters
    ----------
    urls
        Paths or addresses of shards as webdataset takes them: local files, ``https://``, ``s3://``,
        ``pipe:COMMAND``, with braces for ranges (``slide-train-{00000..00007}.tar``). ``pipe:`` runs a command, so do
        not take addresses from those you do not trust.

    Yields
    ------
    Blocks in the order of the addresses, all of them in every process: dividing them among processes is the caller's.

    Raises
    ------
    InputError
        If a shard holds a member that is no block, or a damaged one.

    Examples
    --------
    >>> for block in stream_blocks("https://host/corpus/slide-train-00000.tar"):  # doctest: +SKIP
    ...     print(block.key, block.n_cells)
    """
    # Imported here because webdataset imports PyTorch where there is one.
    from webdataset.gopen import gopen
    from webdataset.shardlists import expand_urls
    from webdataset.tariterators import tar_file_iterator

    for url in chain.from_iterable(map(expand_urls, [urls] if isinstance(urls, str) else urls)):
        # webdataset.WebDataset would do this too, but leaves closing the stream to the garbage collector.
        with gopen(url) as stream:
            for member in tar_file_iterator(stream):
                key, _, suffix = member["fname"].rpartition(".")
                if suffix != SUFFIX or not is_safe_name(key):
                    raise InputError(f"{url} holds a member {member['fname']!r}, which is no block.")
                block = decode_block(member["data"])
                if block.key != key:
                    raise InputError(f"{url} holds block {block.key} under the name {key}.")
                yield block
