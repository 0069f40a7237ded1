"""Integration of slides, patients and technologies: embeddings as they are and after Harmony, beside baselines."""

from .baselines import baseline_embeddings, harmony
from .judging import Integration, judge_integration
from .technologies import completed_embedding, registered_pairs
from .tool import integrate, stored_embeddings

__all__ = [
    "Integration",
    "baseline_embeddings",
    "completed_embedding",
    "harmony",
    "integrate",
    "judge_integration",
    "registered_pairs",
    "stored_embeddings",
]
