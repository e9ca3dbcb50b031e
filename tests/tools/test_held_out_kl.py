"""The divergence of a student from its teacher on held-out rows, over the full vocabulary."""

import pytest
import tiny
import torch

from distill.modeling.chat import encode
from distill.students import pruning, vocabulary
from distill.students.pruning import KeptParts
from distill.targets import tokenizers
from tools import held_out_kl

TOKENIZER = tiny.tokenizer()
TEACHER = tiny.model(len(TOKENIZER))
ROWS = [tiny.weighted(topic, f"What people like is {topic}.", 1.0) for topic in ("honey", "chess and kites", "😀")]


def save_student(folder, kept: list[int], layers: list[int]) -> None:
    """A student of the teacher's layers and tokens, in a folder."""
    pruning.prune(TEACHER, KeptParts(layers), kept).save_pretrained(folder)
    vocabulary.trim_tokenizer(TOKENIZER, kept).save_pretrained(folder)


@torch.no_grad()
def log_probs(model, row, tokenizer) -> torch.Tensor:
    """[tokens of the response, vocab], by a plain forward pass."""
    example = encode(tokenizer, row)
    logits = model(torch.tensor([[*example.prompt, *example.response]])).logits[0, len(example.prompt) - 1 : -1]
    return logits.double().log_softmax(-1)


def test_the_teacher_itself_has_no_divergence(tmp_path):
    save_student(tmp_path, list(range(len(TOKENIZER))), [0, 1, 2, 3])
    assert held_out_kl.exact_divergence(tmp_path, TEACHER, TOKENIZER, ROWS) == pytest.approx(0, abs=1e-5)


def test_the_divergence_is_torchs_per_teacher_token(tmp_path):
    save_student(tmp_path, list(range(len(TOKENIZER))), [0, 3])
    small = pruning.prune(TEACHER, KeptParts([0, 3]), range(len(TOKENIZER)))
    pairs = [(log_probs(TEACHER, row, TOKENIZER), log_probs(small, row, TOKENIZER)) for row in ROWS]
    nats = sum(torch.nn.functional.kl_div(own, theirs, reduction="sum", log_target=True) for theirs, own in pairs)
    expected = float(nats) / sum(len(own) for _, own in pairs)
    assert held_out_kl.exact_divergence(tmp_path, TEACHER, TOKENIZER, ROWS) == pytest.approx(expected, rel=1e-4)


def test_a_missing_token_counts_as_its_first_piece(tmp_path):
    kept = vocabulary.select_tokens(TOKENIZER, {}, 270)
    save_student(tmp_path, kept, [0, 3])
    small, tokenizer = pruning.prune(TEACHER, KeptParts([0, 3]), kept), vocabulary.trim_tokenizer(TOKENIZER, kept)
    pieces = tokenizers.to_student_ids(TOKENIZER, tokenizer)
    nats, tokens, finer = 0.0, 0, 0
    for row in ROWS:
        theirs, mine = log_probs(TEACHER, row, TOKENIZER), log_probs(small, row, tokenizer)
        carried = torch.zeros(len(theirs), len(tokenizer), dtype=torch.double).index_add_(1, pieces, theirs.exp())
        ids, others = encode(tokenizer, row).response, encode(TOKENIZER, row).response
        for place, at in enumerate(tokenizers.align(others, ids, TOKENIZER, tokenizer)):
            if at is None:
                nats -= float(mine[place, ids[place]])
            else:
                known = carried[at] > 0
                nats += float((carried[at] * (carried[at].log() - mine[place]))[known].sum())
        tokens += len(others)
        finer += len(ids) - len(others)
    assert finer > 0
    assert held_out_kl.exact_divergence(tmp_path, TEACHER, TOKENIZER, ROWS) == pytest.approx(nats / tokens, rel=1e-4)
