"""Numbers as they are written."""

from typing import Any


def rounded(value: float) -> float:
    """Six significant digits: the same text on every run, and no more than the intervals warrant."""
    return float(f"{value:.6g}")


def all_rounded(value: Any) -> Any:
    """The value with every float in its mappings rounded."""
    if isinstance(value, dict):
        return {key: all_rounded(part) for key, part in value.items()}
    return rounded(value) if isinstance(value, float) else value
