"""Defaults that functions, `BuildOptions` and the command line share. Lengths in um. Needs no library."""

MIN_QV = 20.0
"""Transcripts of lower quality (Phred-scaled) are dropped."""
MIN_TRANSCRIPTS = 30
"""Cells with fewer are dropped."""

RADIUS = 30.0
"""Cells closer than this are neighbours and positive pairs."""
HARD_MIN, HARD_MAX = 80.0, 150.0
"""Distances of hard negatives."""
EASY_MIN = 150.0
"""Easy negatives are further away."""
N_NEIGHBORS = 6
"""Nearest cells of a cell, where they are asked for."""

COLOCALIZATION_RADIUS = 5.0
"""Transcripts closer than this are joined in the graph of a cell."""
COLOCALIZATION_MIN_TRANSCRIPTS = 3
"""Fewest transcripts of a gene that co-localises with another."""
PROXIMITY_RADIUS = 3.0
"""Transcripts closer than this are proximal pairs of two genes, wherever in the slide."""

VALIDATION_FRACTION = 0.3
"""Share of a slide's cells, or of the slides, that is held out."""
GAP = 60.0
"""Between the regions of training and validation."""
BLOCK_CELLS = 1024
"""Cells that a block of the corpus owns, at most."""

JOBS = 1
"""Slides that a build makes at a time."""
SIMULATED_DEPTH = 150.0
"""Median transcripts of a simulated cell."""

PUNCTA_RADIUS = 1.0
"""Transcripts of a gene closer than this are in one punctum."""
PATTERN_MIN_CELLS = 10.0
"""Cells that must say something of a gene for a test of its pattern inside cells."""
