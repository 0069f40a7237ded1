"""What a reader of a platform is: one class, derived from `ReadsTranscripts`, `ReadsCounts` or both.

`spaf_data.options.READERS` names each. Whatever finds out the platform of a run, reads it or says what was looked for
iterates over them and names none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    import pandas as pd

    from spaf_data.gene_identity import GeneNames
    from spaf_data.options import ReadOptions
    from spaf_data.readers._counts import CellCounts
    from spaf_data.readers._table import Progress
    from spaf_data.transcripts import Transcripts

Run = TypeVar("Run")  # what a run may be: a path, and objects where a platform has some


class Platform(ABC, Generic[Run]):
    """An instrument, or a format, whose runs are read.

    Attributes
    ----------
    name
        By which it is asked for (``platform``) and recorded.
    options
        Fields of `ReadOptions` that it uses; others mean nothing to it.
    files
        Names that files of every run have, so that they say nothing of the run they are of.
    only_by_name
        Whether anything may be a run of it, so that it is never recognised and must be asked for.
    knows_unit
        Whether its runs say themselves what their places are, so that nobody need ask whether they are um.
    """

    name: ClassVar[str]
    options: ClassVar[tuple[str, ...]]
    files: ClassVar[tuple[str, ...]] = ()
    only_by_name: ClassVar[bool] = False
    knows_unit: ClassVar[bool] = True

    def takes(self, run: object) -> bool:
        """Whether a run is of a kind that this platform has: a path, where nothing else is said."""
        return isinstance(run, Path)

    def runs(self, path: Path) -> list[Path]:
        """Return the runs of a path that was recognised: itself, where a folder holds one."""
        return [path]

    def slide_name(self, path: Path) -> str:
        """Return what a slide is called after its run, where nobody names it: its folder, or a file of its own."""
        if path.is_dir():
            return path.name
        # An instrument writes files of fixed names into a folder of the run; any other file has a name of its own.
        return path.parent.name if path.name in self.files else without_endings(path) or path.parent.name


def without_endings(path: Path) -> str:
    """Return the name of a file without what says its format."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


class ReadsTranscripts(Platform[Run]):
    """A platform whose runs have transcripts.

    Attributes
    ----------
    transcripts_wanted
        What a run is recognised by, for a message.
    columns
        A table of any name is one of transcripts of this platform if it has all of these; none: no table is.
    """

    transcripts_wanted: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def has_transcripts(self, run: Run) -> bool:
        """Whether a run has transcripts of this platform."""

    @abstractmethod
    def read_transcripts(
        self, run: Run, options: ReadOptions, *, min_qv: float, progress: Progress | None = None
    ) -> Transcripts:
        """Read the transcripts of a run; see `spaf_data.read_transcripts`."""


class ReadsCounts(Platform[Run]):
    """A platform whose runs have counts of cells, spots or bins.

    Attributes
    ----------
    counts_wanted
        What a run is recognised by, for a message.
    """

    counts_wanted: ClassVar[str]

    @abstractmethod
    def has_counts(self, run: Run) -> bool:
        """Whether a run has counts of this platform."""

    @abstractmethod
    def read_counts(self, run: Run, options: ReadOptions) -> CellCounts:
        """Read the counts of a run; see `spaf_data.read_counts`."""

    def known_genes(self, run: Run, options: ReadOptions) -> GeneNames | None:
        """Return the genes of a run where they can be had without reading it; None: they cannot."""
        return None

    def read_obs(self, run: Run, options: ReadOptions) -> tuple[pd.DataFrame, str | None] | None:
        """Return the table of cells and the column of their slides where the run knows it; None: a run is one slide."""
        return None
