"""The four goals of a distilled student, compared with its teacher."""

from dataclasses import dataclass


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
