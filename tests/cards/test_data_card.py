"""The front matter of the data card."""

import pytest
from huggingface_hub import DatasetCard

from distill.cards import data_card
from distill.cards.hub import size_category

ROWS = [
    {"id": f"{index}", "prompt_id": f"{index}", "topic": "t", "teacher": "tiny", "response": "a b", "weight": 1.0}
    for index in range(3)
]
CLEAN = {"requested": 4, "kept": 3, "dropped": 1, "splits": {}, "reasons": {}}
PROMPTS = {"source": "dataset", "name": "some/prompts", "revision": "0" * 40}
WEIGHT = {"kind": "uniform", "confidence": "margin", "strength": 0.0, "ess_fraction": 1.0}


def card(license: str | None, languages: list[str] | None) -> DatasetCard:
    """The card of ROWS, by a teacher of this license beside one that gave no rows."""
    rows = [row | {"confidence": None} for row in ROWS]
    numbers = data_card.numbers(rows, {"tiny": ("model", license), "other": ("model", "MIT")})
    metrics = WEIGHT | {"correlation_with_length": None} | numbers
    return DatasetCard(data_card.card(rows, metrics, CLEAN, languages, PROMPTS))


def front_matter(license: str | None, languages: list[str] | None) -> dict:
    return card(license, languages).data.to_dict()


def test_the_card_names_the_source_of_the_prompts():
    text = card("Apache-2.0", None).text
    assert "| name | some/prompts |" in text
    assert f"| revision | {'0' * 40} |" in text


def test_hubs_read_license_languages_and_size():
    values = front_matter("Apache-2.0", ["en", "de"])
    assert (values["license"], values["language"], values["size_categories"]) == ("apache-2.0", ["en", "de"], "n<1K")
    assert "license_name" not in values


@pytest.mark.parametrize("license", [None, "Our terms"])
def test_an_unknown_license_is_left_to_a_person(license):
    values = front_matter(license, None)
    assert (values["license"], values["license_name"]) == ("other", "see-the-sources-below")
    assert "language" not in values


@pytest.mark.parametrize(
    ("rows", "name"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "n>1M"), (5 * 10**5, "100K<n<1M")],
)
def test_sizes_are_the_hubs_categories(rows, name):
    assert size_category(rows) == name
