import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from other_tokenizers import OTHER, PIECES, byte_level
from tokenizers import Tokenizer, normalizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.modeling.chat import response_ids
from distill.targets import alignment
from distill.targets.alignment import Span, response_spans, shared, spelling

ONE = tiny.tokenizer()


def spans(one, other, text: str, ended: bool = True) -> tuple[list[Span], list[int], list[int]]:
    ids = [response_ids(tokenizer, text, ended) for tokenizer in (one, other)]
    return response_spans(spelling(one), spelling(other), *ids, ended), *ids


def said(tokenizer, ids: list[int]) -> bytes:
    tokens = spelling(tokenizer).tokens
    return b"".join(tokens[place] for place in ids)


def test_every_token_of_both_sides_from_the_first_to_the_end_of_turn_is_in_one_span():
    found, one, other = spans(ONE, OTHER, "What people like is honey.")
    assert found[0].teacher[0] == found[0].student[0] == 0
    assert found[-1] == Span((len(one) - 1, len(one)), (len(other) - 1, len(other)))
    assert (ONE.convert_ids_to_tokens(one[-1]), OTHER.convert_ids_to_tokens(other[-1])) == ("<|im_end|>", "<|end|>")
    for side, ids in (("teacher", one), ("student", other)):
        assert [place for span in found for place in range(*getattr(span, side))] == list(range(len(ids)))


def test_spans_are_as_short_as_can_be_and_spell_the_same():
    found, one, other = spans(ONE, OTHER, "people like honeycomb")
    texts = [said(ONE, one[slice(*span.teacher)]) for span in found[:-1]]
    assert texts == [said(OTHER, other[slice(*span.student)]) for span in found[:-1]]
    lengths = {(span.teacher[1] - span.teacher[0], span.student[1] - span.student[0]) for span in found}
    assert (1, 1) in lengths
    assert any(theirs != own for theirs, own in lengths)
    assert len(found) > 4


def test_a_character_is_aligned_within_where_both_cut_it():
    faces = byte_level(["😀", "😁", "😂"] * 5, 270)  # their first three bytes are one token, the last is another
    assert [len(tokenizer("😃").input_ids) for tokenizer in (ONE, faces)] == [4, 2]
    assert spans(ONE, faces, "😃", ended=False)[0] == [Span((0, 3), (0, 1)), Span((3, 4), (1, 2))]
    assert spans(ONE, OTHER, "😀", ended=False)[0] == [Span((0, 4), (0, 1))]
    # SentencePiece: a token for the space before the text, and four bytes
    by_byte = [Span((0, 1), (0, 2)), Span((1, 2), (2, 3)), Span((2, 3), (3, 4)), Span((3, 4), (4, 5))]
    assert spans(ONE, PIECES, "😀", ended=False)[0] == by_byte


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.booleans())
def test_any_text_is_covered_whole(text, ended):
    for one, other in ((ONE, OTHER), (ONE, PIECES), (PIECES, OTHER)):
        found, left, right = spans(one, other, text, ended)
        if "<" in text or "▁" in text:
            continue  # what looks like a special token or is SentencePiece's own sign
        assert [place for span in found for place in range(*span.teacher)] == list(range(len(left)))
        assert [place for span in found for place in range(*span.student)] == list(range(len(right)))


def test_the_space_that_one_side_writes_before_a_text_hides_no_first_token():
    found, one, other = spans(ONE, PIECES, "What is honey?")
    assert spelling(PIECES).prefix
    assert not spelling(ONE).prefix
    assert found[0].teacher[0] == found[0].student[0] == 0
    assert said(PIECES, other[slice(*found[0].student)]) == b" " + said(ONE, one[slice(*found[0].teacher)])


def test_the_same_tokenizer_has_a_span_a_token():
    found, ids, _ = spans(ONE, ONE, "What is honey?")
    assert found == [Span((place, place + 1), (place, place + 1)) for place in range(len(ids))]


def test_a_response_cut_short_keeps_the_spans_that_are_whole_and_has_no_end():
    whole, one, other = spans(ONE, OTHER, "What people like is honey.")
    cut = response_spans(spelling(ONE), spelling(OTHER), one, other[:-3], True)
    assert cut == [span for span in whole if span.student[1] <= len(other) - 3]
    assert 0 < len(cut) < len(whole) - 1


def test_a_response_that_was_not_ended_has_no_end():
    found, one, _ = spans(ONE, OTHER, "What is honey?", ended=False)
    assert found[-1].teacher[1] == len(one)
    assert said(ONE, one[slice(*found[-1].teacher)]).endswith(b"?")


def test_where_a_tokenizer_changes_the_text_the_spans_stop_and_the_end_of_turn_remains():
    lower = byte_level(tiny.CORPUS, 330, normalizer=normalizers.Lowercase())
    found, one, other = spans(ONE, lower, "so much Glass")
    assert said(ONE, [place for span in found[:-1] for place in one[slice(*span.teacher)]]) in (b"so much", b"so much ")
    assert found[-1] == Span((len(one) - 1, len(one)), (len(other) - 1, len(other)))


def test_tokens_that_spell_the_same_are_shared_whatever_their_ids():
    theirs, own = spelling(ONE), spelling(OTHER)
    pairs = shared(theirs, own, first=False).tolist()
    assert len(pairs) == len(ONE)
    for place, mate in enumerate(pairs):
        if place == ONE.eos_token_id:
            assert mate == OTHER.eos_token_id
        elif mate >= 0:
            assert theirs.tokens[place] == own.tokens[mate]
        else:
            assert place in theirs.special or theirs.tokens[place] not in own.tokens
    mates = [mate for mate in pairs if mate >= 0]
    assert len(set(mates)) == len(mates) > 256
    assert shared(theirs, theirs, first=False).tolist() == list(range(len(ONE)))


def test_at_the_beginning_of_a_text_a_word_goes_with_the_word_and_its_space():
    theirs, own = spelling(ONE), spelling(PIECES)
    word = ONE.convert_tokens_to_ids("What")
    assert word is not None
    spaced = next(place for place, text in enumerate(own.tokens) if text == b" What")
    assert shared(theirs, own, first=True)[word] == spaced
    assert shared(theirs, own, first=False)[word] != spaced


def test_a_piece_goes_before_the_single_byte_that_spells_the_same():
    theirs, own = spelling(ONE), spelling(PIECES)
    letter = PIECES.convert_tokens_to_ids("o")
    assert own.tokens[letter] == own.tokens[PIECES.convert_tokens_to_ids("<0x6F>")] == b"o"
    assert shared(theirs, own, first=False)[ONE.convert_tokens_to_ids("o")] == letter


def test_a_tokenizer_whose_tokens_do_not_spell_the_text_is_refused():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(UserError, match="neither byte-level nor SentencePiece-like"):
        alignment.spelling(words)
