"""Faults to plant in targets, each with the test that must notice it."""

from planting import Fault

FAULTS = [
    Fault(
        "the mass outside the k is not stored",
        "distill/targets/stored.py",
        "tail = torch.log1p(-best.exp().sum(-1).clamp(max=1.0))",
        "tail = torch.full_like(best[:, 0], -math.inf)",
        "targets/test_stored.py::test_top_k_and_tail_hold_all_the_mass",
    ),
    Fault(
        "a tokenizer family is recognised by its size",
        "distill/targets/tokenizers.py",
        'return same_rules and set(student_spec["model"]["vocab"]) <= set(teacher_spec["model"]["vocab"])',
        "return len(student) <= len(teacher)",
        "targets/test_tokenizers.py::test_another_family_of_equal_size_is_refused",
    ),
    Fault(
        "a fingerprint is the size of the vocabulary",
        "distill/targets/tokenizers.py",
        '{key: spec[key] for key in ("model", "added_tokens", "pre_tokenizer", "normalizer")}',
        '{"size": len(spec["model"]["vocab"])}',
        "targets/test_tokenizers.py::test_another_family_of_equal_size_is_refused",
    ),
    Fault(
        "the teacher's ids are used as the student's",
        "distill/targets/tokenizers.py",
        "student_vocab[token] if token in student_vocab else",
        "teacher_id if teacher_id < len(student_vocab) else",
        "targets/test_tokenizers.py::test_teacher_tokens_begin_with_their_first_piece",
    ),
    Fault(
        "the end of turn is skipped on both sides",
        "distill/targets/alignment.py",
        "    if both_end:\n",
        "    if False:\n",
        "targets/test_alignment.py::test_every_token_is_in_one_span",
    ),
    Fault(
        "ends of turn with different spellings are not the same",
        "distill/targets/alignment.py",
        'result["end of turn", b""] = token',
        'result["special", text] = token # ',
        "targets/test_alignment.py::test_tokens_of_equal_bytes_are_shared",
    ),
    Fault(
        "spans start one token late",
        "distill/targets/alignment.py",
        "result, last = [], (0, 0)",
        "result, last = [], (1, 1)",
        "targets/test_alignment.py::test_every_token_is_in_one_span",
    ),
    Fault(
        "a space before the text hides the first token",
        "distill/targets/alignment.py",
        'pieces[0] = pieces[0].removeprefix(b" ")',
        "pass",
        "targets/test_alignment.py::test_a_leading_space_hides_no_first_token",
    ),
    Fault(
        "the first token has no target in a family",
        "distill/targets/tokenizers.py",
        "enumerate(spans(teacher, teacher_ids))}",
        "enumerate(spans(teacher, teacher_ids)) if start}",
        "targets/test_tokenizers.py::test_first_token_and_end_of_turn_are_aligned",
    ),
    Fault(
        "targets of other data are accepted",
        "distill/targets/store.py",
        'if wrong := [key for key in values if manifest["source"].get(key) != values[key]]:',
        "if wrong := []:",
        "targets/test_store.py::test_targets_of_another_source_are_refused[template]",
    ),
    Fault(
        "targets of changed texts are accepted",
        "distill/targets/store.py",
        'data=value_hash([[row["id"], row["messages"], row["response"], row["finish_reason"]] for row in rows])',
        'data=value_hash([row["id"] for row in rows])',
        "targets/test_store.py::test_a_source_depends_on_texts_and_tokenizer",
    ),
    Fault(
        "targets of another tokenizer of the same size are accepted",
        "distill/targets/store.py",
        "tokenizer=fingerprint(tokenizer),",
        "tokenizer=str(len(tokenizer)),",
        "targets/test_store.py::test_a_source_depends_on_texts_and_tokenizer",
    ),
    Fault(
        "all rows of a batch have the first one's targets",
        "distill/modeling/forward.py",
        "yield from zip(indices, rows.split([len(examples[index].response) for index in indices]), strict=True)",
        "yield from ((index, rows[: len(examples[index].response)]) for index in indices)",
        "targets/test_teacher_pass.py::test_rows_of_a_ragged_batch_are_stored_as_rows_alone[top_k]",
    ),
    Fault(
        "logits of padding are stored",
        "distill/targets/teacher_pass.py",
        "self.model.get_output_embeddings()(states))[:, : self.num_tokens]",
        "self.model.get_output_embeddings()(states))",
        "targets/test_teacher_pass.py::test_logits_beyond_the_tokenizer_have_no_mass[top_k]",
    ),
]
