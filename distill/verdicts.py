"""Whether a difference is more than noise: in words, the same wherever two results are compared."""

BETTER, WORSE, NOISE = "better", "worse", "within noise"


def verdict(ci_low: float, ci_high: float, more_is_better: bool) -> str:
    """Better or worse where the interval of a difference leaves zero out."""
    if ci_low <= 0 <= ci_high:
        return NOISE
    return BETTER if (ci_low > 0) == more_is_better else WORSE
