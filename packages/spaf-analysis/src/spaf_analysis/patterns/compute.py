"""What a table of patterns says: which genes are called, and what each is before all."""

import numpy as np
import pandas as pd

FDR = 0.05
_OPPOSITE = {"central": "edge", "nuclear": "cytoplasmic"}  # sides of one statistic


def pattern_counts(table: pd.DataFrame, fdr: float = FDR) -> pd.DataFrame:
    """Count the genes tested and called for each pattern.

    Parameters
    ----------
    table
        As `spaf_data.subcellular_patterns` gives it.
    fdr
        False discovery rate up to which a gene is called.

    Returns
    -------
    By `pattern`, in the order of the first test of each: `n_tested`, `n_called`.
    """
    called = table.assign(called=table["fdr"] <= fdr).groupby("pattern", sort=True)["called"]
    return pd.DataFrame({"n_tested": called.size(), "n_called": called.sum().astype(np.int64)})


def leading_patterns(table: pd.DataFrame, fdr: float = FDR) -> pd.DataFrame:
    """Return the pattern of each gene that is called with the largest standard score.

    Parameters
    ----------
    table, fdr
        As for `pattern_counts`.

    Returns
    -------
    Rows of `table`, one for each gene that is called for some pattern, the largest standard score first.
    """
    called = table[table["fdr"] <= fdr].sort_values(["z", "gene"], ascending=[False, True], kind="stable")
    return called.drop_duplicates("gene").reset_index(drop=True)


def scores_of_genes(table: pd.DataFrame, genes: list[str], patterns: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return standard scores and false discovery rates, genes x patterns; NaN where there was no test."""
    place = table.set_index(["gene", "pattern"])
    wanted = pd.MultiIndex.from_product([genes, patterns])
    shape = (len(genes), len(patterns))
    z, fdr = (place[column].reindex(wanted).to_numpy(dtype=np.float64).reshape(shape) for column in ("z", "fdr"))
    return z, fdr


def shown_patterns(patterns: list[str]) -> list[str]:
    """Leave out the other side of a statistic of which one side is there: its scores are those with another sign."""
    return [name for name in patterns if not any(_OPPOSITE.get(other) == name for other in patterns)]
