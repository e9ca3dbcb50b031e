"""The four goals of a distilled student, compared with its teacher."""

import math
from dataclasses import dataclass

MIN_ITEMS = 100  # from which on the 95% interval of an accuracy is at most 0.1 to each side


@dataclass(frozen=True)
class Goal:
    """A number of the main table, and the threshold that it must reach from above (`at_least`) or below.

    `strict`: the threshold itself does not count as reached.
    """

    name: str
    threshold: float
    at_least: bool
    strict: bool
    meaning: str

    def met(self, value: float) -> bool:
        """Whether the value reaches the threshold."""
        if value == self.threshold:
            return not self.strict
        return (value > self.threshold) == self.at_least

    @property
    def condition(self) -> str:
        """As text: `> 0.85`."""
        return f"{'>' if self.at_least else '<'}{'' if self.strict else '='} {self.threshold:g}"


GOALS = (
    Goal("accuracy_ratio", 0.85, True, True, "accuracy of the distilled student over the teacher's"),
    Goal("perplexity", 20.0, False, False, "perplexity of the teacher's held-out responses, per token of the teacher"),
    Goal("compression_ratio", 0.25, False, False, "parameters of the student over the teacher's"),
    Goal("latency_gain", 2.0, True, False, "time of the teacher over the student's for a response at batch 1"),
)


def few_items_warning(items: int) -> list[str]:
    """A paragraph on goals that so few held-out items cannot decide; none where they are enough."""
    if items >= MIN_ITEMS:
        return []
    side = 0.98 / math.sqrt(items)  # 1.96 standard deviations of a fraction of 0.5
    return [
        f"Warning: {items} held-out items are too few to tell whether a goal is met. The 95% interval of an accuracy "
        f"reaches up to {min(side, 0.5):.2f} to each side. Add prompts or raise clean.test_fraction and "
        f"evaluate.max_samples, to {MIN_ITEMS} items or more."
    ]
