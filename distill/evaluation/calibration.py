"""Expected calibration error, and the lengths of generated responses."""

import numpy as np
import pandas as pd

NUM_BINS = 10  # of equal width, as in Naeini et al. 2015


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """ECE = sum over bins b of |b| / n x |accuracy of b - mean confidence of b| (Naeini et al. 2015; Guo et al. 2017).

    `confidence` [items] is the probability of the picked choice; `correct` [items] is 1 where that choice is right.
    The bins are (0, 0.1], ..., (0.9, 1]. A model whose confidence equals its accuracy in every bin has 0.
    """
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    gaps = [abs((correct[bins == number] - confidence[bins == number]).sum()) for number in range(NUM_BINS)]
    return float(sum(gaps) / len(confidence))


def calibration(items: pd.DataFrame) -> dict[str, float]:
    """One model's ECE with its mean confidence and its accuracy, whose difference has a sign."""
    confidence, correct = (items[name].to_numpy(float) for name in ("confidence", "correct"))
    return {
        "ece": expected_calibration_error(confidence, correct),
        "mean_confidence": float(confidence.mean()),
        "accuracy": float(correct.mean()),
    }


def response_lengths(items: pd.DataFrame) -> dict[str, float]:
    """Mean lengths of one model's generated responses and of their references, and the ratio of the two sums.

    Lengths are in the teacher's tokens without the end of turn. `ended` is the fraction of responses that the model
    ended itself.
    """
    rows = items[items["generated_length"].notna()]
    generated, reference = (rows[name].to_numpy(float) for name in ("generated_length", "reference_length"))
    return {
        "generated_tokens": float(generated.mean()),
        "reference_tokens": float(reference.mean()),
        "ratio": float(generated.sum() / reference.sum()),
        "ended": float(rows["ended"].to_numpy(float).mean()),
    }
