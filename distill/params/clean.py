"""Section `clean` of params.yaml."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from distill.params.fields import Count, Part, Section, Share, Text


class Clean(Section):
    """Which rows are dropped, and how the topics are split."""

    validation_topics: Part
    test_topics: Part
    drop_truncated: bool
    min_words: Count
    max_words: Count
    max_repetition: Share
    near_duplicate: Part
    minhash_permutations: Annotated[int, Field(ge=16)]
    contamination_ngram: Annotated[int, Field(ge=3)]
    refusals: list[Text]
    languages: Annotated[list[Text], Field(min_length=1)] | None
    evaluation_texts: list[Text]
    evaluation_tasks: list[Text]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words ({self.min_words}) is larger than max_words ({self.max_words})")
        if self.validation_topics + self.test_topics >= 1:
            raise ValueError("validation_topics and test_topics leave no topic to train on")
        return self
