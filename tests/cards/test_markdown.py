"""Blocks of a document as markdown."""

import pytest

from distill.cards import markdown
from distill.cards.document import Bullets, Data, Figure, Responses, Section, Table, format_number
from distill.core.errors import UserError


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.91234, "0.912"), (2.0, "2"), (15.26, "15.3"), (251234.5, "251,000"), (999.6, "1,000"), (-0.25, "-0.25")],
)
def test_numbers_have_three_digits(value, text):
    assert format_number(value) == text


def test_text_from_data_never_becomes_markup():
    shown = markdown.quoted("<b>1</b> | *x* [y](z)\n# `q` $a$ \\n ~~s~~ a_b")
    assert shown == (
        "&lt;b&gt;1&lt;/b&gt; &#124; &#42;x&#42; &#91;y&#93;(z)<br>"
        "&#35; &#96;q&#96; &#36;a&#36; &#92;n &#126;&#126;s&#126;&#126; a&#95;b"
    )
    assert markdown.quoted("https://a.b @c") == "https&#58;//a.b &#64;c"
    assert markdown.quoted("see www.a.example or WWW.B.example") == "see www&#46;a.example or WWW&#46;B.example"
    assert markdown.quoted("&amp;") == "&amp;amp;"


def test_characters_that_hide_or_reorder_text_are_visible():
    assert markdown.quoted("a\x00b\x1b\u202ec\td\ud800") == "a\ufffdb\ufffd\ufffdc d\ufffd"


@pytest.mark.parametrize(
    "hidden",
    "\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2061\u2066\u2069\ufeff\u061c\u00ad\u034f\u180e\u3164\ufe0f\U000e0041\U000e0101",
)
def test_no_zero_width_or_direction_character_hides_in_a_text(hidden):
    assert markdown.quoted(f"pay{hidden}pal") == "pay\ufffdpal"
    assert markdown.quoted(f"9{hidden}{hidden}").endswith("\ufffd")


@pytest.mark.parametrize(
    "text",
    [
        "é 漢 👩\u200d🔬 ❤\ufe0f 1\ufe0f\u20e3 👍🏽",
        "\u0645\u06cc\u200c\u0631\u0648\u0645",  # Persian with a non-joiner
        "\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala with a joiner
        "\u1798\u17b6\u1793\u200b\u1794",  # Khmer with a zero-width space
        "\u845b\U000e0100",  # a variant of a Han character
    ],
)
def test_what_spells_a_text_stays(text):
    assert markdown.quoted(text) == text


def test_empty_text_is_named_and_long_text_shortened():
    assert markdown.quoted(" \n") == "(nothing)"
    assert markdown.quoted("x" * 600) == "x" * 600
    assert markdown.quoted("x" * 601) == "x" * 600 + " ..."


def test_columns_are_aligned_as_asked_or_numbers_right():
    assert (
        markdown.table(Table(["a", "b", "c"], [["1", "2", "3"]], "lrl"))
        == "| a | b | c |\n| --- | ---: | --- |\n| 1 | 2 | 3 |"
    )
    assert markdown.table(Table(["a", "b"], [])).splitlines()[1] == "| --- | ---: |"


def test_each_kind_of_block_is_rendered():
    blocks = [
        "Text.",
        Bullets(["one", "two"]),
        Figure("loss", "Losses"),
        Responses(Data("Why *?"), {"sft": Data("So.")}),
        Section("Inner", ["Deep."]),
    ]
    assert markdown.render(Section("Outer", blocks)) == "\n\n".join([
        "## Outer",
        "Text.",
        "- one\n- two",
        "![Losses](figures/loss.png)",
        "**Why &#42;?**",
        "| model | response |\n| --- | --- |\n| sft | So. |",
        "### Inner",
        "Deep.",
    ])  # fmt: skip


def test_only_the_block_between_its_marks_is_replaced():
    begin, end = markdown.marks("table")
    text = f"a\n{begin}\nold\n{end}\nb\n"
    once = markdown.between(text, "new", "table", "x")
    assert once == f"a\n{begin}\nnew\n{end}\nb\n"
    assert markdown.between(once, "new", "table", "x") == once
    for wrong in ("nothing here", f"{end}\n{begin}", text.replace("table", "samples")):
        with pytest.raises(UserError, match=r"README\.md must have the lines"):
            markdown.between(wrong, "new", "table", "README.md")
