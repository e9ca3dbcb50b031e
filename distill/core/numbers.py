"""Rounding of results to six significant digits.

Every run then prints a result as the same text, and with no more digits than its interval warrants.
"""

from typing import Any


def round_number(value: float) -> float:
    """The value with six significant digits."""
    return float(f"{value:.6g}")


def round_numbers(value: Any) -> Any:
    """The value with every float in it or in its nested mappings rounded."""
    if isinstance(value, dict):
        return {key: round_numbers(part) for key, part in value.items()}
    return round_number(value) if isinstance(value, float) else value
