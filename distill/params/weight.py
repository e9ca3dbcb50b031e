"""Section `weight`: how much each training row counts."""

from typing import Annotated, Literal

from pydantic import Field

from distill.params.fields import NotNegative, PositiveFraction, Real, Section, SmallCount, Tokens


class Confidence(Section):
    """A measure of the teacher's confidence in a response (distill/weighting/confidence.py has the formulas)."""

    measure: Literal["mean_log_prob", "min_log_prob", "entropy", "margin", "self_consistency", "ifd", "judge_score"]


class LowestWindowConfidence(Section):
    """The mean log-probability of the least confident `window` tokens in a row."""

    measure: Literal["lowest_window_log_prob"]
    window: Tokens


class UniformWeights(Section):
    """Every row counts the same."""

    kind: Literal["uniform"]


class ConfidenceWeights(Section):
    """weight = exp(strength x standardised confidence), at most `max_weight` and at least its inverse.

    The strength is lowered until the effective sample size is at least `min_ess_fraction` of the rows. Confidence is
    standardised within teacher and length bucket. `shuffled` gives the same weights to other rows, as a control.
    """

    kind: Literal["confidence", "shuffled"]
    confidence: Annotated[Confidence | LowestWindowConfidence, Field(discriminator="measure")]
    strength: Annotated[NotNegative, Field(le=100)]
    num_length_buckets: SmallCount
    max_weight: Annotated[Real, Field(gt=1, le=1000)]
    min_ess_fraction: PositiveFraction


Weight = Annotated[UniformWeights | ConfidenceWeights, Field(discriminator="kind")]
