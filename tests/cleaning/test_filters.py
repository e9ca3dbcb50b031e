"""Filters of single rows: quality and language."""

import pytest
from raw_rows import BAD_ROWS, CLEAN, TOPIC, clean_params, clean_rows, drop_reasons, good_rows, raw_row

from distill.cleaning.filters import LanguageFilter, quality_filter
from distill.core.errors import UserError


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
