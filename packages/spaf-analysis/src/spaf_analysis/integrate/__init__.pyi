"""Integration of slides, patients and technologies: embeddings as they are and after Harmony, beside baselines."""

from .baselines import baseline_embeddings, harmony
from .judging import Integration, judge_integration
from .tool import integrate

__all__ = ["Integration", "baseline_embeddings", "harmony", "integrate", "judge_integration"]
