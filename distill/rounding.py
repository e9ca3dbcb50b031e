"""Numbers as they are written."""


def rounded(value: float) -> float:
    """Six significant digits: the same text on every run, and no more than the intervals warrant."""
    return float(f"{value:.6g}")
