"""Tasks x methods x data sets, judged by the code of the analyses, in one table with intervals and verdicts."""

from .base import Difference, Judged, Method, Score, Settings, Task
from .config import BenchmarkConfig, read_benchmark
from .data import Data, DataOptions
from .methods import InObsm, OfModel, OwnTissue, RandomTwin
from .page import write_benchmark
from .run import Cell, run_benchmark
from .table import Row, markdown, rows_of

__all__ = [
    "BenchmarkConfig",
    "Cell",
    "Data",
    "DataOptions",
    "Difference",
    "InObsm",
    "Judged",
    "Method",
    "OfModel",
    "OwnTissue",
    "RandomTwin",
    "Row",
    "Score",
    "Settings",
    "Task",
    "markdown",
    "read_benchmark",
    "rows_of",
    "run_benchmark",
    "write_benchmark",
]
