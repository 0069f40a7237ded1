"""Which shards of an unfinished corpus are complete, so that a build that was killed goes on where it was."""

import json
import logging
import shutil
from pathlib import Path

from spaf_data.corpus.files import whole_file
from spaf_data.corpus.manifest import shard_as_dict, shard_from_dict
from spaf_data.corpus.shard import Shard, size_and_sha256

_FOLDER = ".journal"

logger = logging.getLogger(__name__)


class Journal:
    """A folder beside the shards of an unfinished corpus, with one record for each complete shard.

    A record names the inputs of its shard by their hash, and counts only for the same inputs and while the shard has
    the bytes it was written with.
    """

    def __init__(self, corpus: Path):
        self._corpus = corpus
        self._folder = corpus / _FOLDER

    @property
    def exists(self) -> bool:
        """Whether the folder holds an unfinished corpus."""
        return self._folder.is_dir()

    def open(self) -> None:
        """Mark the folder as an unfinished corpus."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def find(self, shard_name: str, inputs: str) -> Shard | None:
        """Return the record of a complete shard made from these inputs, if there is one."""
        path = self._corpus / shard_name
        try:
            record = json.loads(self._record(shard_name).read_bytes())
            if record["inputs"] != inputs:
                return None
            shard = shard_from_dict(record["shard"])
            if size_and_sha256(path) != (shard.n_bytes, shard.sha256):
                return None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        logger.info("%s is complete and kept", shard_name)
        return shard

    def add(self, shard: Shard, inputs: str) -> None:
        """Record a shard that was written."""
        with whole_file(self._record(shard.name)) as file:
            file.write(json.dumps({"inputs": inputs, "shard": shard_as_dict(shard)}).encode())

    def drop_shards(self, keep: set[str]) -> None:
        """Remove the shards recorded here except those named, and what killed builds left half-written."""
        for record in self._folder.glob("*.json"):
            if record.stem not in keep:
                (self._corpus / record.stem).unlink(missing_ok=True)
                record.unlink()
        for partial in self._corpus.glob("*.tar.partial"):
            partial.unlink()

    def close(self) -> None:
        """Remove the journal of a corpus that is finished."""
        shutil.rmtree(self._folder)

    def _record(self, shard_name: str) -> Path:
        return self._folder / f"{shard_name}.json"
