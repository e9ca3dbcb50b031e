"""Section `clean` of params.yaml."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from distill.params.fields import Fraction, Line, PositiveFraction, Section, Text, Tokens


class Clean(Section):
    """Filters of rows, and the split of topics."""

    validation_fraction: PositiveFraction
    test_fraction: PositiveFraction
    drop_truncated: bool
    min_words: Tokens
    max_words: Tokens
    max_repetition: Fraction
    minhash_threshold: PositiveFraction
    minhash_num_perm: Annotated[int, Field(ge=16, le=4096)]
    decontamination_ngram: Annotated[int, Field(ge=3, le=1000)]
    refusal_prefixes: list[Text]
    languages: Annotated[list[Line], Field(min_length=1)] | None
    evaluation_texts: list[Line]
    evaluation_tasks: list[Line]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words must be at most max_words ({self.max_words}), got {self.min_words}")
        if self.validation_fraction + self.test_fraction >= 1:
            held_out = self.validation_fraction + self.test_fraction
            raise ValueError(f"validation_fraction and test_fraction must add up to less than 1, got {held_out:g}")
        return self
