"""The marks of scores that stand side by side."""

# Okabe and Ito's colours, with a marker each, so that colour is never the only sign.
SCORE_MARKS = (
    ("#0072b2", "o"), ("#56b4e9", "D"), ("#e69f00", "s"), ("#d55e00", "v"), ("#7b8794", "^"), ("#009e73", "P"),
)  # fmt: skip
