"""Which features are controls, by their names, on any platform."""

from __future__ import annotations

import re

# What follows a prefix is spelled out as far as the instruments do, because mouse genes begin with "Neg" (Negr1).
CONTROL_NAME = re.compile(
    r"NegControl|NegPrb|Negative\d|antisense_|UnassignedCodeword|DeprecatedCodeword|Intergenic_?Region"  # Xenium
    r"|BLANK|Blank|blank[-_]?\d|notarget"  # MERSCOPE, MERFISH
    r"|SystemControl|FalseCode"  # CosMx
)


def is_control_name(feature: str) -> bool:
    """Whether a feature is a control by its name.

    Examples
    --------
    >>> is_control_name("Blank-81"), is_control_name("Negr1")
    (True, False)
    """
    return CONTROL_NAME.match(feature) is not None
