"""Which rows go because of their language."""

import pytest
from raw_rows import TOPIC, cleaned, corpus, raw, reasons, with_params

from distill.cleaning.filters import Languages
from distill.core.errors import UserError

ENGLISH = Languages(["en"])


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
def test_only_what_is_surely_in_another_language_is_told(text, language):
    assert ENGLISH.other(text) == language


def test_several_languages_may_be_wanted():
    assert Languages(["en", "fr"]).other("Les abeilles vivent en grandes familles.") is None
    assert Languages(["fr"]).other("They live in large families.") == "en"


def test_an_unknown_language_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"unknown codes: english\. Known are .*, de, .*, en, "):
        Languages(["english", "de"])


def test_rows_in_other_languages_go_only_where_languages_are_named():
    rows = [*corpus(), raw(TOPIC["train"], "Les abeilles vivent en grandes familles.", "x")]
    assert reasons(rows) == {}
    metrics, parts = cleaned(rows, with_params(languages=["en"]))
    assert [(row["id"], row["reason"], row["detail"]) for row in parts["dropped"]] == [
        (rows[-1]["id"], "language", "fr")
    ]
    assert metrics["reasons"]["language"] == 1
