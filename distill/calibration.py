"""What is no ratio over items: how far a model's confidence is to be believed, and how long its answers are."""

import numpy as np
import pandas as pd

BINS = 10  # of equal width, as in Naeini et al. 2015


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """ECE = sum over bins b of |b| / n x |accuracy of b - mean confidence of b| (Naeini et al. 2015; Guo et al. 2017).

    `confidence` [items] is the probability of the picked answer and `correct` [items] whether it was right. The bins
    are (0, 0.1], ..., (0.9, 1]; 0 is a model whose confidence says how often it is right.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = [abs((correct[bins == number] - confidence[bins == number]).sum()) for number in range(BINS)]
    return float(sum(gaps) / len(confidence))


def calibration(items: pd.DataFrame) -> dict[str, float]:
    """One model's ECE in the multiple choice, beside its mean confidence and its accuracy, whose gap has the sign."""
    confidence, correct = (items[name].to_numpy(float) for name in ("confidence", "correct"))
    return {
        "ece": expected_calibration_error(confidence, correct),
        "mean_confidence": float(confidence.mean()),
        "accuracy": float(correct.mean()),
    }


def lengths(items: pd.DataFrame) -> dict[str, float]:
    """Mean length of one model's generated answers and of the references, in tokens of the teacher without the end of
    turn, their ratio, and the share of answers that the model ended by itself."""
    rows = items[items["generated_length"].notna()]
    generated, reference = (rows[name].to_numpy(float) for name in ("generated_length", "reference_length"))
    return {
        "generated_tokens": float(generated.mean()),
        "reference_tokens": float(reference.mean()),
        "ratio": float(generated.sum() / reference.sum()),
        "ended": float(rows["ended"].to_numpy(float).mean()),
    }
