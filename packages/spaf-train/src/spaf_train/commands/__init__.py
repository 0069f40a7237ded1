"""The larger commands of ``spaf-train``; what does their work is imported when they run."""
