"""Labels of cells carried from a reference to a query."""

from .compute import METHODS, Annotation, annotate_arrays, judge_methods
from .estimators import LabelProbe, NearestLabels
from .tool import annotate

__all__ = [
    "METHODS",
    "Annotation",
    "LabelProbe",
    "NearestLabels",
    "annotate",
    "annotate_arrays",
    "judge_methods",
]
