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
from distill.targets.alignment import Span, response_spans, shared_tokens, token_bytes

TEACHER = tiny.tokenizer()


def spans(first, second, text: str, ended: bool = True) -> tuple[list[Span], list[int], list[int]]:
    ids = [response_ids(tokenizer, text, ended) for tokenizer in (first, second)]
    return response_spans(token_bytes(first), token_bytes(second), *ids, ended), *ids


def text_bytes(tokenizer, ids: list[int]) -> bytes:
    tokens = token_bytes(tokenizer).tokens
    return b"".join(tokens[position] for position in ids)


def test_every_token_is_in_one_span():
    aligned, first, second = spans(TEACHER, OTHER, "What people like is honey.")
    assert aligned[0].teacher[0] == aligned[0].student[0] == 0
    assert aligned[-1] == Span((len(first) - 1, len(first)), (len(second) - 1, len(second)))
    assert (TEACHER.convert_ids_to_tokens(first[-1]), OTHER.convert_ids_to_tokens(second[-1])) == (
        "<|im_end|>",
        "<|end|>",
    )
    for side, ids in (("teacher", first), ("student", second)):
        assert [position for span in aligned for position in range(*getattr(span, side))] == list(range(len(ids)))


def test_spans_are_short_and_spell_the_same():
    aligned, first, second = spans(TEACHER, OTHER, "people like honeycomb")
    texts = [text_bytes(TEACHER, first[slice(*span.teacher)]) for span in aligned[:-1]]
    assert texts == [text_bytes(OTHER, second[slice(*span.student)]) for span in aligned[:-1]]
    lengths = {(span.teacher[1] - span.teacher[0], span.student[1] - span.student[0]) for span in aligned}
    assert (1, 1) in lengths
    assert any(num_teacher != num_student for num_teacher, num_student in lengths)
    assert len(aligned) > 4


def test_spans_may_end_within_a_character():
    faces = byte_level(["😀", "😁", "😂"] * 5, 270)  # their first three bytes are first token, the last is another
    assert [len(tokenizer("😃").input_ids) for tokenizer in (TEACHER, faces)] == [4, 2]
    assert spans(TEACHER, faces, "😃", ended=False)[0] == [Span((0, 3), (0, 1)), Span((3, 4), (1, 2))]
    assert spans(TEACHER, OTHER, "😀", ended=False)[0] == [Span((0, 4), (0, 1))]
    # SentencePiece: a token for the space before the text, and four bytes
    by_byte = [Span((0, 1), (0, 2)), Span((1, 2), (2, 3)), Span((2, 3), (3, 4)), Span((3, 4), (4, 5))]
    assert spans(TEACHER, PIECES, "😀", ended=False)[0] == by_byte


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.booleans())
def test_any_text_is_covered(text, ended):
    for first, second in ((TEACHER, OTHER), (TEACHER, PIECES), (PIECES, OTHER)):
        aligned, left, right = spans(first, second, text, ended)
        if "<" in text or "▁" in text:
            continue  # what looks like a special token or is SentencePiece's own sign
        assert [position for span in aligned for position in range(*span.teacher)] == list(range(len(left)))
        assert [position for span in aligned for position in range(*span.student)] == list(range(len(right)))


def test_a_leading_space_hides_no_first_token():
    aligned, first, second = spans(TEACHER, PIECES, "What is honey?")
    assert token_bytes(PIECES).prefix
    assert not token_bytes(TEACHER).prefix
    assert aligned[0].teacher[0] == aligned[0].student[0] == 0
    assert text_bytes(PIECES, second[slice(*aligned[0].student)]) == b" " + text_bytes(
        TEACHER, first[slice(*aligned[0].teacher)]
    )


def test_one_tokenizer_has_a_span_for_each_token():
    aligned, ids, _ = spans(TEACHER, TEACHER, "What is honey?")
    assert aligned == [Span((position, position + 1), (position, position + 1)) for position in range(len(ids))]


def test_a_truncated_response_keeps_complete_spans():
    full, first, second = spans(TEACHER, OTHER, "What people like is honey.")
    cut = response_spans(token_bytes(TEACHER), token_bytes(OTHER), first, second[:-3], True)
    assert cut == [span for span in full if span.student[1] <= len(second) - 3]
    assert 0 < len(cut) < len(full) - 1


def test_an_unfinished_response_has_no_end():
    aligned, first, _ = spans(TEACHER, OTHER, "What is honey?", ended=False)
    assert aligned[-1].teacher[1] == len(first)
    assert text_bytes(TEACHER, first[slice(*aligned[-1].teacher)]).endswith(b"?")


def test_spans_stop_where_a_tokenizer_changes_the_text():
    lower = byte_level(tiny.CORPUS, 330, normalizer=normalizers.Lowercase())
    aligned, first, second = spans(TEACHER, lower, "so much Glass")
    assert text_bytes(TEACHER, [position for span in aligned[:-1] for position in first[slice(*span.teacher)]]) in (
        b"so much",
        b"so much ",
    )
    assert aligned[-1] == Span((len(first) - 1, len(first)), (len(second) - 1, len(second)))


def test_tokens_of_equal_bytes_are_shared():
    teacher, student = token_bytes(TEACHER), token_bytes(OTHER)
    pairs = shared_tokens(teacher, student, first=False).tolist()
    assert len(pairs) == len(TEACHER)
    for position, student_id in enumerate(pairs):
        if position == TEACHER.eos_token_id:
            assert student_id == OTHER.eos_token_id
        elif student_id >= 0:
            assert teacher.tokens[position] == student.tokens[student_id]
        else:
            assert position in teacher.special or teacher.tokens[position] not in student.tokens
    student_ids = [student_id for student_id in pairs if student_id >= 0]
    assert len(set(student_ids)) == len(student_ids) > 256
    assert shared_tokens(teacher, teacher, first=False).tolist() == list(range(len(TEACHER)))


def test_first_words_match_words_with_a_space():
    teacher, student = token_bytes(TEACHER), token_bytes(PIECES)
    word = TEACHER.convert_tokens_to_ids("What")
    assert word is not None
    spaced = next(position for position, text in enumerate(student.tokens) if text == b" What")
    assert shared_tokens(teacher, student, first=True)[word] == spaced
    assert shared_tokens(teacher, student, first=False)[word] != spaced


def test_pieces_go_before_single_bytes():
    teacher, student = token_bytes(TEACHER), token_bytes(PIECES)
    letter = PIECES.convert_tokens_to_ids("o")
    assert student.tokens[letter] == student.tokens[PIECES.convert_tokens_to_ids("<0x6F>")] == b"o"
    assert shared_tokens(teacher, student, first=False)[TEACHER.convert_tokens_to_ids("o")] == letter


def test_a_word_level_tokenizer_is_refused():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(UserError, match="neither byte-level nor SentencePiece-like"):
        token_bytes(words)
