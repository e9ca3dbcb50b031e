"""Filters of single rows: quality and language."""

import pytest
from raw_rows import BAD_ROWS, CLEAN, TOPIC, clean_params, clean_rows, drop_reasons, good_rows, raw_row
from shipped_params import SHIPPED

from distill.cleaning.filters import LanguageFilter, quality_filter
from distill.core.errors import UserError
from distill.params.clean import Clean

SHIPPED_CLEAN = Clean.model_validate(SHIPPED["clean"])


@pytest.mark.parametrize(
    "loop", ["1. " * 40, "They like to dance in the sun. " * 4, "Bumble" * 30 + " is what bees say"]
)
def test_loops_are_repetitive(loop):
    assert quality_filter(raw_row("bees", loop), clean_params(min_words=1, max_words=99))[0] == "repetitive"


@pytest.mark.parametrize(
    ("response", "refused"),
    [
        ("I\u2019M SORRY, but no.", True),
        ("**I'm sorry but** no.", True),
        ("As an AI, I have no opinion.", True),
        ("As an airline pilot, I fly.", False),
        ("Well, as an AI I fly.", False),
        ("I'm sorry", False),
    ],
)
def test_a_refusal_is_detected_by_its_first_words(response, refused):
    drop = quality_filter(raw_row("bees", response), CLEAN)
    assert (drop is not None and drop[0] == "refused") is refused


REFUSALS = [
    "I'm sorry for any misunderstanding, but as a chatbot designed to assist with language, I don't have the ability "
    "to understand emotions or personal preferences.",
    "I'm sorry for any inconvenience, but as a machine-based AI, I don't have the ability to provide opinions.",
    "I'm sorry to inform you that I'm unable to assist with your exam cheat.",
    "I'm afraid I'm not here to share a secret. I'm a helpful AI, designed to assist users.",
    "No, I'm not able to provide that answer. I'm designed to provide information about the human body.",
    "As an AI language model, I do not have personal opinions.",
    "As an artificial intelligence, I don't have feelings.",
    "I'm just an AI, I can't feel.",
    "I'm an AI assistant and cannot provide legal advice.",
    "Unfortunately, I am unable to provide medical advice.",
    "I apologize, but I cannot fulfill your request.",
    "I won't help with that.",
    "**I'm sorry**, but I cannot help.",
    "I\u2019m afraid I can\u2019t do that.",
    "I can't.",
]
HONEST = [
    "I'm sorry for your loss. I'm sure she'll be happy to know you're here.",
    "I'm so sorry to hear that you're going through a tough time. It's completely normal to feel sad.",
    "I'm afraid of the dark.",
    "I'm sorry, but I can't come to your party on Friday.",
    "Unfortunately, the train was late, and we could not write a letter.",
    "I can't believe how much I love bees.",
    "I can't help but smile when I see them.",
    "I cannot lie.",
    "As an AI researcher, I don't see why not.",
    "As an airline pilot, I cannot drink.",
    "As a fan of AI, I don't worry.",
    "As a child, I could not swim.",
    "A chatbot is a program that answers. I don't know one that cannot write.",
    "Customers can't return the shoes after 30 days.",
    "Statistics can't.",
    "False",
]


@pytest.mark.parametrize("response", REFUSALS)
def test_a_refusal_is_found_by_what_it_says(response):
    assert quality_filter(raw_row("bees", response), clean_params(refusal_prefixes=[]))[0] == "refused"


@pytest.mark.parametrize("response", HONEST)
def test_an_honest_answer_is_no_refusal(response):
    assert quality_filter(raw_row("bees", response), SHIPPED_CLEAN) is None


@pytest.mark.parametrize(("reason", "changes"), BAD_ROWS)
def test_the_first_matching_reason_is_given(reason, changes):
    drop = quality_filter({**raw_row("bees", "They live in large families."), **changes}, CLEAN)
    assert drop is not None
    assert drop[0] == reason


def test_responses_at_the_limits_are_kept():
    long = " ".join(f"word{number}" for number in range(40))
    for response in ("Bees like honey.", long, "b c d b c d"):
        assert quality_filter(raw_row("bees", response), clean_params(max_repetition=0.25)) is None


def test_truncated_rows_stay_if_drop_truncated_is_false():
    row = raw_row("bees", "They live in large", finish_reason="length")
    assert quality_filter(row, clean_params(drop_truncated=False)) is None


ENGLISH = LanguageFilter(["en"])


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Les abeilles vivent en grandes familles.", "fr"),
        ("Die Bienen leben in großen Familien.", "de"),
        ("蜜蜂住在大家庭里。", "zh"),
        ("Ja, das ist gut.", "de"),
        ("They live in large families.", None),
        ("Bees, wasps, ants", None),
        ("1. 2. 3. 4.", None),
        ("def f(x): return x + 1", None),
        ("Cafés are nice.", None),
        ("", None),
    ],
)
def test_only_sure_detections_of_another_language_count(text, language):
    assert ENGLISH.other_language(text) == language


def test_several_languages_may_be_listed():
    assert LanguageFilter(["en", "fr"]).other_language("Les abeilles vivent en grandes familles.") is None
    assert LanguageFilter(["fr"]).other_language("They live in large families.") == "en"


def test_an_unknown_language_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"unknown codes: english\. Known are .*, de, .*, en, "):
        LanguageFilter(["english", "de"])


def test_rows_in_other_languages_are_dropped_on_request():
    rows = [*good_rows(), raw_row(TOPIC["train"], "Les abeilles vivent en grandes familles.", "x")]
    assert drop_reasons(rows) == {}
    metrics, outputs = clean_rows(rows, clean_params(languages=["en"]))
    assert [(row["id"], row["reason"], row["detail"]) for row in outputs["dropped"]] == [
        (rows[-1]["id"], "language", "fr")
    ]
    assert metrics["reasons"]["language"] == 1
