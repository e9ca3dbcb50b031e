"""Rounding of results to six significant digits, and a bounded exp.

Rounded, every run prints a result as the same text, and with no more digits than its interval warrants.
"""

import math
from typing import Any

MAX_EXPONENT = 700.0  # exp of more overflows


def round_number(value: float) -> float:
    """The value with six significant digits."""
    return float(f"{value:.6g}")


def perplexity(nats: float) -> float:
    """exp of the nats of a token, at most exp of MAX_EXPONENT."""
    return math.exp(min(nats, MAX_EXPONENT))


def round_numbers(value: Any) -> Any:
    """The value with every float in it or in its nested mappings rounded."""
    if isinstance(value, dict):
        return {key: round_numbers(part) for key, part in value.items()}
    return round_number(value) if isinstance(value, float) else value
