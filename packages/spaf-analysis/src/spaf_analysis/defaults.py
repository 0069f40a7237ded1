"""Defaults that functions and commands share, where nothing heavy is imported."""

N_NEIGHBORS = 15  # cells in the neighbourhood of a cell
MAX_PAIRS = 2_000  # positive cell pairs judged at each radius, as by spaf-train evaluate
N_REPLICATES = 1_000  # resampled tissues behind each interval
NICHE_SCALES = (1, 2, 4)  # times that the mean over a cell and its neighbours is taken
MAX_NICHES = 15  # domains tried where their number is not given
N_PERMUTATIONS = 9_999  # of donors, where there are more arrangements than that
MAX_CELL_PAIRS = 200  # near pairs of cells whose genes are changed, each with a far one
MIN_CELL_PAIRS = 10  # near and far pairs of cells that a gene pair is judged by
N_NEAR_FAR = 5_000  # permutations of near and far, at most, of each gene pair
BANDWIDTH = 30.0  # um, standard deviation of the kernel in which ligands and receptors are beside each other
TILE = 100.0  # um, side of the squares within which ligands and receptors are dealt anew
N_MATCHED = 40  # genes as frequent as a ligand or receptor, of which random pairs are made
