"""Defaults that functions and commands share, where nothing heavy is imported."""

N_NEIGHBORS = 15  # cells in the neighbourhood of a cell
MAX_PAIRS = 2_000  # positive cell pairs judged at each radius, as by spaf-train evaluate
N_REPLICATES = 1_000  # resampled tissues behind each interval
