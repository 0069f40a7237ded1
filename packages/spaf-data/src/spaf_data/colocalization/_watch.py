"""What methods that go through all cells of a slide tell on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from spaf_data._memory import TRANSCRIPTS_AT_A_TIME

if TYPE_CHECKING:
    from spaf_data.colocalization.cells import CellTranscripts
    from spaf_data.transcripts import Transcripts


class Watch:
    """Says how far a method is, and gives back the memory of transcripts that it has dealt with."""

    def __init__(
        self, transcripts: Transcripts, cells: CellTranscripts, progress: Callable[[float], None] | None
    ) -> None:
        self._transcripts = transcripts
        self._ends = np.cumsum(cells.n_transcripts)
        self._progress = progress
        self._released = 0

    def after(self, cells: slice) -> None:
        """Take note that all cells up to the end of these are done."""
        n_done = int(self._ends[cells.stop - 1])
        if n_done - self._released >= TRANSCRIPTS_AT_A_TIME or cells.stop == len(self._ends):
            self._transcripts.release()
            self._released = n_done
        if self._progress is not None:
            self._progress(n_done / max(1, int(self._ends[-1])))
