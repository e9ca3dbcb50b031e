import pytest
import tiny
from other_tokenizers import TEACHER, TEXT, ids, trimmed
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.targets.tokenizers import align, fingerprint, same_family, to_student_ids, to_teacher_ids

SMALL = trimmed(310)


def test_first_pieces_are_aligned_with_teacher_tokens():
    teacher_ids, student_ids = ids(TEACHER, TEXT), ids(SMALL, TEXT)
    positions = align(teacher_ids, student_ids, TEACHER, SMALL)
    assert [position for position in positions if position is not None] == list(range(len(teacher_ids)))
    assert len(student_ids) > len(teacher_ids)
    for position, token in zip(positions, SMALL.convert_ids_to_tokens(student_ids), strict=True):
        if position is not None:
            assert TEACHER.convert_ids_to_tokens(teacher_ids[position]).startswith(token)


def test_first_token_and_end_of_turn_are_aligned():
    text = "honey<|im_end|>"
    positions = align(ids(TEACHER, text), ids(SMALL, text), TEACHER, SMALL)
    assert positions[0] == 0
    assert positions[-1] == len(ids(TEACHER, text)) - 1


def test_a_tokenizer_is_aligned_with_itself():
    teacher_ids = ids(TEACHER, TEXT)
    assert align(teacher_ids, teacher_ids, TEACHER, TEACHER) == list(range(len(teacher_ids)))
    assert to_student_ids(TEACHER, TEACHER).tolist() == list(range(len(TEACHER)))


def test_teacher_tokens_begin_with_their_first_piece():
    renumbered = trimmed(330, dict.fromkeys(range(len(TEACHER) - 40, len(TEACHER)), 1))
    for small in (SMALL, renumbered):
        pieces = to_student_ids(TEACHER, small)
        assert pieces.shape == (len(TEACHER),)
        for token, position in TEACHER.get_vocab().items():
            piece = small.convert_ids_to_tokens(int(pieces[position]))
            assert token == piece if token in small.get_vocab() else token.startswith(piece)
    assert any(TEACHER.get_vocab()[token] != position for token, position in renumbered.get_vocab().items())


def test_another_family_of_equal_size_is_refused():
    other = tiny.tokenizer(400)
    vocab = other.get_vocab()
    assert len(other) == len(TEACHER)
    other.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    assert vocab == TEACHER.get_vocab()
    with pytest.raises(UserError, match="different families"):
        to_student_ids(TEACHER, other)
    assert fingerprint(other) != fingerprint(TEACHER)
    assert fingerprint(tiny.tokenizer()) == fingerprint(TEACHER)


def test_another_kind_of_tokenizer_is_another_family():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    assert not same_family(TEACHER, words)
    with pytest.raises(UserError, match="different families"):
        to_student_ids(TEACHER, words)


def test_student_tokens_have_the_teachers_ids():
    teacher_ids = to_teacher_ids(TEACHER, SMALL)
    for token, student_id in SMALL.get_vocab().items():
        assert TEACHER.convert_ids_to_tokens(int(teacher_ids[student_id])) == token
