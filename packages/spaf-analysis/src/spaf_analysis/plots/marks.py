"""The marks of scores that stand side by side."""

# Okabe and Ito's colours, with a marker each, so that colour is never the only sign.
SCORE_MARKS = (
    ("#0072b2", "o"), ("#56b4e9", "D"), ("#e69f00", "s"), ("#d55e00", "v"), ("#7b8794", "^"), ("#009e73", "P"),
    ("#cc79a7", "X"), ("#a96b59", "<"), ("#000000", "*"), ("#832db6", ">"), ("#b9ac70", "p"), ("#3f90da", "h"),
)  # fmt: skip
