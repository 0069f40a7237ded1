"""Genes that a spatial experiment did not measure, by a reference that did."""

from .compute import METHODS, Imputation, fit_imputation
from .tool import ImputedTable, impute, imputed_table, stored_imputation
from .writing import write_imputed

__all__ = [
    "METHODS",
    "Imputation",
    "ImputedTable",
    "fit_imputation",
    "impute",
    "imputed_table",
    "stored_imputation",
    "write_imputed",
]
