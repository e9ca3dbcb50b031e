"""Faults that users of such projects have been bitten by, planted one at a time: a test of ours fails on each.

A test that has never failed may look at nothing. Here the project is copied, one place of the copy is made wrong, and
the test that is there for it must fail by what it asserts. In a copy without a fault the same tests pass.
"""

import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import forks
import pytest
import tiny

pytestmark = pytest.mark.slow

FOLDERS = ("distill", "stages", "tests", "tools")
FILES = ("params.yaml", "pyproject.toml")
ASSERTED = re.compile(r"E +(assert |AssertionError|Failed: DID NOT RAISE)")  # the error of a test that has looked


class Fault(NamedTuple):
    """`right`, which is there once in `file`, becomes `wrong`; `test` must notice."""

    name: str
    file: str
    right: str
    wrong: str
    test: str


FAULTS = [
    # losses
    Fault(
        "the student's tail holds the k tokens too",
        "distill/losses/chunked.py",
        "mass.scatter_(1, ids[start : start + chunk], 0.0).sum",
        "mass.sum",
        "losses/test_divergences.py::test_the_loss_is_0_where_the_student_is_the_teacher[5-1.0-forward_kl]",
    ),
    Fault(
        "tempered before coarse-grained",
        "distill/losses/divergences.py",
        "Outcomes.apply(logits, ids, labels, chunk)",
        "(settings.temperature * x for x in Outcomes.apply(logits / settings.temperature, ids, labels, chunk))",
        "losses/test_divergences.py::test_the_loss_is_0_where_the_student_is_the_teacher[5-2.0-forward_kl]",
    ),
    Fault(
        "forward and reverse KL are mixed up",
        "distill/losses/divergences.py",
        "(teacher.exp() * (teacher - student))",
        "(student.exp() * (student - teacher))",
        "losses/test_divergences.py::test_closed_forms_on_two_outcomes",
    ),
    Fault(
        "the beta of jsd is the student's part",
        "distill/losses/divergences.py",
        "mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))\n    return beta",
        "mixture = torch.logaddexp(teacher + math.log1p(-beta), student + math.log(beta))\n    return beta",
        "losses/test_divergences.py::test_every_divergence_is_its_formula_in_probabilities[0.1-jsd]",
    ),
    Fault(
        "jsd tends to the KLs at its ends",
        "distill/losses/divergences.py",
        "return beta * forward_kl(mixture, teacher, beta) + (1 - beta) * forward_kl(mixture, student, beta)",
        "return forward_kl(mixture, teacher, beta) / (1 - beta) + forward_kl(mixture, student, beta) / beta",
        "losses/test_divergences.py::test_jsd_is_symmetric_in_the_middle_and_vanishes_at_its_ends",
    ),
    Fault(
        "no T^2",
        "distill/losses/divergences.py",
        " * settings.temperature**2",
        "",
        "losses/test_divergences.py::test_the_gradient_keeps_its_size_when_the_temperature_changes",
    ),
    Fault(
        "T^2 twice",
        "distill/losses/divergences.py",
        " * settings.temperature**2",
        " * settings.temperature**4",
        "losses/test_divergences.py::test_the_fast_path_equals_the_plain_one_with_its_gradient[0.0-2.0-forward_kl]",
    ),
    Fault(
        "no T^2 between tokenizers",
        "distill/losses/cross_tokenizer.py",
        " * settings.temperature**2",
        "",
        "losses/test_cross_tokenizer.py::test_with_one_tokenizer_it_is_the_loss_of_tokens[2.0-5-forward_kl]",
    ),
    Fault(
        "divided by the micro-batch",
        "distill/training/trainer.py",
        "self.accelerator.num_processes / num_items_in_batch",
        'self.accelerator.num_processes / inputs["weights"].sum()',
        "training/test_trainer.py::test_a_step_is_the_same_in_one_batch_and_in_micro_batches[settings1]",
    ),
    Fault(
        "divided by the number of micro-batches too",
        "distill/training/trainer.py",
        "self.loss_is_scaled_for_ga = True",
        "self.loss_is_scaled_for_ga = False",
        "training/test_trainer.py::test_a_step_is_the_same_in_one_batch_and_in_micro_batches[settings1]",
    ),
    Fault(
        "divided by tokens without their weights",
        "distill/training/trainer.py",
        'batch["weights"].sum() for batch',
        'batch["predicts"].sum() for batch',
        "training/test_trainer.py::test_the_divisor_is_the_sum_of_weights_times_tokens",
    ),
    Fault(
        "padding counts in the divisor",
        "distill/training/trainer.py",
        'batch["weights"].sum() for batch',
        'batch["weights"].mean() * batch["input_ids"].numel() for batch',
        "training/test_trainer.py::test_padding_changes_nothing",
    ),
    Fault(
        "a mean where a sum of the batch is meant",
        "distill/losses/divergences.py",
        "label_log_probs, top.known, settings)).sum()",
        "label_log_probs, top.known, settings)).mean()",
        "losses/test_divergences.py::test_the_size_of_the_chunk_and_a_split_of_the_batch_change_nothing[forward_kl]",
    ),
    Fault(
        "each chunk reads the first one's tokens",
        "distill/losses/chunked.py",
        "part.gather(1, places[start : start + chunk])",
        "part.gather(1, places[: len(part)])",
        "losses/test_divergences.py::test_the_size_of_the_chunk_and_a_split_of_the_batch_change_nothing[forward_kl]",
    ),
    Fault(
        "each chunk of a whole distribution reads the first one's labels",
        "distill/losses/divergences.py",
        "student.gather(1, labels[span, None])",
        "student.gather(1, labels[: len(student), None])",
        "losses/test_divergences.py::test_a_whole_distribution_gives_the_loss_and_the_gradient_of_autograd_on_all_outcomes[0.4-1.0-forward_kl]",
    ),
    Fault(
        "cross-entropy without the gradient of its label",
        "distill/losses/chunked.py",
        "            grad.scatter_add_(1, labels[span, None], grad_label[span, None])\n",
        "",
        "losses/test_divergences.py::test_every_term_has_a_gradient_of_its_own[cross_entropy]",
    ),
    Fault(
        "a divergence without a gradient",
        "distill/losses/divergences.py",
        "DIVERGENCES[settings.loss](student, teacher, settings.beta)",
        "DIVERGENCES[settings.loss](student.detach(), teacher, settings.beta)",
        "losses/test_divergences.py::test_every_term_has_a_gradient_of_its_own[reverse_kl]",
    ),
    Fault(
        "the fused gradient counts the k as the rest",
        "distill/losses/chunked.py",
        "            grad.scatter_(1, ids[span], -everything[span, None] * chosen)\n",
        "",
        "losses/test_divergences.py::test_the_fast_path_equals_the_plain_one_with_its_gradient[0.0-2.0-forward_kl]",
    ),
    Fault(
        "the fused gradient forgets what the loss is multiplied by",
        "distill/losses/chunked.py",
        "return gradient * outer, None, None",
        "return gradient, None, None",
        "losses/test_divergences.py::test_a_whole_distribution_gives_the_loss_and_the_gradient_of_autograd_on_all_outcomes[0.4-1.0-forward_kl]",
    ),
    Fault(
        "-inf in a ragged row of the teacher",
        "distill/losses/divergences.py",
        "top.log_probs.float().clamp(min=LEAST).masked_fill(~exists, NEVER)",
        "top.log_probs.float()",
        "losses/test_divergences.py::test_a_ragged_row_is_finite_and_equals_the_row_without_its_padding",
    ),
    Fault(
        "-inf in a whole distribution of the teacher",
        "distill/losses/divergences.py",
        "full.log_probs(span).clamp(min=NOTHING)",
        "full.log_probs(span)",
        "losses/test_divergences.py::test_a_whole_distribution_is_finite_where_the_teacher_gives_a_token_nothing[forward_kl]",
    ),
    Fault(
        "an unused place of a ragged row takes a token out of the tail",
        "distill/losses/divergences.py",
        "ids = torch.where(exists, top.ids, top.ids[:, :1])",
        "ids = top.ids",
        "losses/test_divergences.py::test_a_ragged_row_is_finite_and_equals_the_row_without_its_padding",
    ),
    Fault(
        "the tail is renormalised away",
        "distill/losses/divergences.py",
        'if settings.tail == "bucket":',
        'if settings.tail == "none":',
        "losses/test_divergences.py::test_renormalising_is_blind_to_the_mass_outside_and_the_bucket_is_not",
    ),
    Fault(
        "the tail is dropped and nothing renormalised",
        "distill/losses/divergences.py",
        "(log_softmax(side / settings.temperature, dim=-1) for side",
        "(side / settings.temperature for side",
        "losses/test_divergences.py::test_no_divergence_is_ever_negative[reverse_kl]",
    ),
    Fault(
        "the mass outside the k is not stored",
        "distill/targets/store.py",
        "tail = torch.log1p(-best.exp().sum(-1).clamp(max=1.0))",
        "tail = torch.full_like(best[:, 0], -math.inf)",
        "targets/test_store.py::test_the_k_best_and_the_tail_hold_all_the_mass",
    ),
    Fault(
        "of the teacher's tokens with one first piece the last one's mass counts alone",
        "distill/training/online_teacher.py",
        "carried.scatter_add_(1,",
        "carried.scatter_(1,",
        "training/test_online_teacher.py::test_the_distribution_is_that_of_a_plain_forward_pass_carried_over_token_by_token",
    ),
    Fault(
        "of stored tokens with one first piece the last one's mass counts alone",
        "distill/training/dataset.py",
        "scatter_add_(-1, place, probs)",
        "scatter_(-1, place, probs)",
        "training/test_dataset.py::test_equal_ids_in_a_row_are_added_up_and_no_mass_is_lost",
    ),
    # masks
    Fault(
        "not shifted",
        "distill/modeling/batches.py",
        "predicts[row, len(prompt) - 1 : end - 1] = True",
        "predicts[row, len(prompt) : end] = True",
        "training/test_dataset.py::test_labels_and_weights_stand_in_the_order_of_the_predicting_positions",
    ),
    Fault(
        "the prompt is learnt",
        "distill/modeling/batches.py",
        "predicts[row, len(prompt) - 1 : end - 1] = True",
        "predicts[row, : end - 1] = True",
        "training/test_dataset.py::test_no_prompt_token_and_no_padding_is_learnt",
    ),
    Fault(
        "padding is learnt",
        "distill/modeling/batches.py",
        "predicts[row, len(prompt) - 1 : end - 1] = True",
        "predicts[row, len(prompt) - 1 : -1] = True",
        "training/test_dataset.py::test_no_prompt_token_and_no_padding_is_learnt",
    ),
    Fault(
        "no end of turn is learnt",
        "distill/modeling/chat.py",
        "return [*ids, end_of_turn(tokenizer)] if ended else ids",
        "return ids",
        "modeling/test_chat.py::test_exactly_one_end_of_turn_is_learnt_though_padding_is_the_same_token",
    ),
    Fault(
        "the end of turn is taken for padding",
        "distill/training/dataset.py",
        'Sample(row["id"], example.prompt, example.response,',
        'Sample(row["id"], example.prompt, [t for t in example.response if t != student.pad_token_id],',
        "training/test_dataset.py::test_a_batch_has_one_end_of_turn_to_learn_in_each_row_that_ended_though_padding_is_the_same_token",
    ),
    Fault(
        "the end of turn stays in the teacher's text, and is learnt twice",
        "distill/generation/local.py",
        "tokenizer.decode(tokens[:-1] if ended else tokens, skip",
        "tokenizer.decode(tokens, skip",
        "modeling/test_decoding.py::test_the_end_of_turn_is_no_part_of_an_answers_text",
    ),
    Fault(
        "a token that pads too is not learnt where it is text",
        "distill/training/tied_embeddings.py",
        "    embedding.padding_idx = None\n",
        "",
        "training/test_tied_embeddings.py::test_an_embedding_has_the_same_gradient_when_its_rows_are_added_in_place[False]",
    ),
    Fault(
        "an end of turn that the teacher spells out ends the answer",
        "distill/modeling/chat.py",
        "tokenizer(response, add_special_tokens=False, split_special_tokens=True)",
        "tokenizer(response, add_special_tokens=False)",
        "modeling/test_chat.py::test_an_end_of_turn_that_the_teacher_spells_out_is_text_and_not_an_end[stop]",
    ),
    Fault(
        "it ends the answer where a model is evaluated",
        "distill/evaluation/lm_eval_model.py",
        "split_special_tokens=True, return",
        "return",
        "evaluation/test_held_out.py::test_a_document_is_the_prompt_and_answer_of_training",
    ),
    Fault(
        "it ends the answer of a base model",
        "distill/modeling/few_shot.py",
        "add_special_tokens=False, split_special_tokens=True)",
        "add_special_tokens=False)",
        "modeling/test_few_shot.py::test_a_special_token_that_an_answer_spells_out_is_text",
    ),
    Fault(
        "a response cut off is learnt as an ended one",
        "distill/modeling/chat.py",
        "return [*ids, end_of_turn(tokenizer)] if ended else ids",
        "return [*ids, end_of_turn(tokenizer)]",
        "modeling/test_chat.py::test_a_truncated_response_has_no_end_of_turn",
    ),
    Fault(
        "columns equal behind a difference are taken for a shared beginning",
        "distill/modeling/packing.py",
        "same.int().cumprod(0).sum()",
        "same.int().sum()",
        "modeling/test_forward.py::test_a_ragged_batch_has_the_logits_and_the_states_of_batches_of_one",
    ),
    Fault(
        "a packed token's place is that in the batch",
        "distill/modeling/packing.py",
        "packed(places.expand(batch, -1))",
        "torch.arange(packed(ids).shape[1])[None]",
        "modeling/test_packing.py::test_packed_batches_have_the_logits_and_gradients_of_padded_ones[llama-eager-shared]",
    ),
    Fault(
        "a packed row sees what comes behind",
        "distill/modeling/packing.py",
        "[:, None] & causal[shared:]",
        "[:, None].expand(-1, columns, -1)",
        "modeling/test_packing.py::test_packed_batches_have_the_logits_and_gradients_of_padded_ones[llama-sdpa-none]",
    ),
    Fault(
        "what is learnt of a shared beginning by the rows behind it is lost",
        "distill/modeling/packing.py",
        "beginning.expand(batch, -1, -1, -1)",
        "beginning.detach().expand(batch, -1, -1, -1)",
        "modeling/test_packing.py::test_packed_batches_have_the_logits_and_gradients_of_padded_ones[llama-eager-shared]",
    ),
    Fault(
        "a model whose tokens meet outside of attention is packed",
        "distill/modeling/packing.py",
        'set(getattr(config, "layer_types", None) or ()) <= LAYERS',
        "True",
        "modeling/test_packing.py::test_a_model_that_mixes_tokens_elsewhere_or_sees_a_window_only_is_not_packed",
    ),
    Fault(
        "the last feed-forward part is computed for the prompt too",
        "distill/modeling/forward.py",
        "if part is None or model",
        "if True or model",
        "modeling/test_forward.py::test_the_last_feed_forward_part_is_computed_where_a_token_is_predicted",
    ),
    Fault(
        "padding is attended to",
        "distill/modeling/decoding.py",
        "(torch.arange(longest) >= (longest - lengths)[:, None]).long()",
        "torch.ones(len(prompts), longest, dtype=torch.long)",
        "modeling/test_decoding.py::test_a_ragged_batch_answers_as_batches_of_one",
    ),
    Fault(
        "all rows of a batch have the first one's targets",
        "stages/weight.py",
        "                start += len(example.response)\n",
        "",
        "weighting/test_weight_stage.py::test_what_is_stored_of_a_ragged_batch_is_what_each_row_has_alone[stored]",
    ),
    # vocabularies
    Fault(
        "logits of padding have mass",
        "distill/training/online_teacher.py",
        "logits(span)[:, : len(pieces)].float().softmax(-1)",
        "logits(span).float().softmax(-1)[:, : len(pieces)]",
        "training/test_online_teacher.py::test_the_distribution_is_that_of_a_plain_forward_pass_carried_over_token_by_token",
    ),
    Fault(
        "logits of padding are stored",
        "stages/weight.py",
        "store.top_k(part[:, :size], wanted.top_k)",
        "store.top_k(part, wanted.top_k)",
        "weighting/test_weight_stage.py::test_logits_beyond_the_tokenizer_are_padding_of_a_family_and_have_no_mass[stored]",
    ),
    Fault(
        "a family is told by size",
        "distill/targets/tokenizers.py",
        'return same_rules and set(other["model"]["vocab"]) <= set(mine["model"]["vocab"])',
        "return len(student) <= len(teacher)",
        "students/test_vocabulary.py::test_a_tokenizer_of_another_family_is_refused_though_the_sizes_are_equal",
    ),
    Fault(
        "a fingerprint is the size",
        "distill/targets/tokenizers.py",
        '{key: spec[key] for key in ("model", "added_tokens", "pre_tokenizer", "normalizer")}',
        '{"size": len(spec["model"]["vocab"])}',
        "students/test_vocabulary.py::test_a_tokenizer_of_another_family_is_refused_though_the_sizes_are_equal",
    ),
    Fault(
        "the teacher's ids are taken for the student's",
        "distill/targets/tokenizers.py",
        "own[token] if token in own else",
        "place if place < len(own) else",
        "students/test_vocabulary.py::test_every_teachers_token_begins_with_its_first_piece",
    ),
    # templates
    Fault(
        "two BOS",
        "distill/modeling/chat.py",
        "tokenizer(render(tokenizer, messages), add_special_tokens=False)",
        "tokenizer(render(tokenizer, messages))",
        "modeling/test_chat.py::test_there_is_at_most_one_bos_even_where_the_tokenizer_adds_its_own",
    ),
    Fault(
        "two BOS where a model is evaluated",
        "distill/evaluation/lm_eval_model.py",
        "self.hf_tokenizer(context, add_special_tokens=False)",
        "self.hf_tokenizer(context)",
        "evaluation/test_held_out.py::test_the_prompt_is_that_of_training_though_the_tokenizer_adds_a_bos_of_its_own",
    ),
    Fault(
        "two BOS where a text is generated for the evaluation",
        "distill/evaluation/lm_eval_model.py",
        "self.hf_tokenizer(request.args[0], add_special_tokens=False)",
        "self.hf_tokenizer(request.args[0])",
        "evaluation/test_held_out.py::test_the_prompt_is_that_of_training_though_the_tokenizer_adds_a_bos_of_its_own",
    ),
    Fault(
        "the beginning of a long prompt is kept",
        "distill/modeling/chat.py",
        "ids[-max_tokens:]",
        "ids[:max_tokens]",
        "modeling/test_chat.py::test_of_a_long_prompt_the_end_is_kept_and_of_a_long_response_the_beginning",
    ),
    Fault(
        "all but the last message is dropped",
        "distill/modeling/chat.py",
        "apply_chat_template(messages, tokenize",
        "apply_chat_template(messages[-1:], tokenize",
        "modeling/test_chat.py::test_every_message_is_in_the_prompt_in_its_turn",
    ),
    Fault(
        "the evaluation asks without the template",
        "distill/evaluation/held_out.py",
        '"prompt": render(tokenizer, row["messages"]),',
        '"prompt": row["messages"][-1]["content"],',
        "evaluation/test_held_out.py::test_a_document_is_the_prompt_and_answer_of_training",
    ),
    Fault(
        "the teacher answers without the template",
        "distill/generation/local.py",
        "prompts = [prompt_ids(tokenizer, request.messages) for request in batch]",
        'prompts = [tokenizer(request.messages[-1]["content"]).input_ids for request in batch]',
        "modeling/test_decoding.py::test_greedy_answers_are_those_of_transformers_generate",
    ),
    Fault(
        "the teacher teaches without the template",
        "distill/training/dataset.py",
        'Asked(prompt_ids(teacher, row["messages"]),',
        'Asked(teacher(row["messages"][-1]["content"]).input_ids,',
        "training/test_online_teacher.py::test_teacher_and_student_read_the_same_prompt",
    ),
    # between tokenizers
    Fault(
        "the end of turn is skipped on both sides",
        "distill/targets/alignment.py",
        "    if both_end:\n",
        "    if False:\n",
        "targets/test_alignment.py::test_every_token_of_both_sides_from_the_first_to_the_end_of_turn_is_in_one_span",
    ),
    Fault(
        "ends of turn that are spelled otherwise are not the same",
        "distill/targets/alignment.py",
        'result["end of turn", b""] = place',
        'result["special", text] = place',
        "targets/test_alignment.py::test_tokens_that_spell_the_same_are_shared_whatever_their_ids",
    ),
    Fault(
        "spans start one token late",
        "distill/targets/alignment.py",
        "result, last = [], (0, 0)",
        "result, last = [], (1, 1)",
        "targets/test_alignment.py::test_every_token_of_both_sides_from_the_first_to_the_end_of_turn_is_in_one_span",
    ),
    Fault(
        "a space before the text hides the first token",
        "distill/targets/alignment.py",
        'pieces[0] = pieces[0].removeprefix(b" ")',
        "pass",
        "targets/test_alignment.py::test_the_space_that_one_side_writes_before_a_text_hides_no_first_token",
    ),
    Fault(
        "of a span only the first token learns",
        "distill/losses/cross_tokenizer.py",
        "label_log_probs.new_zeros(int(starts.sum())).index_add(0, span[top.known], label_log_probs[top.known])",
        "label_log_probs[starts]",
        "losses/test_cross_tokenizer.py::test_every_token_of_every_span_is_learnt_from_the_first_to_the_end_of_turn[8-student0]",
    ),
    Fault(
        "the first token has no target in a family",
        "distill/targets/tokenizers.py",
        "enumerate(spans(teacher, teacher_ids))}",
        "enumerate(spans(teacher, teacher_ids)) if start}",
        "students/test_vocabulary.py::test_the_first_response_token_and_the_end_of_turn_are_aligned",
    ),
    # targets
    Fault(
        "targets go by place",
        "distill/training/dataset.py",
        'given |= _at(places, by_id[row["id"]], pieces)',
        "given |= _at(places, list(by_id.values())[len(result)], pieces)",
        "training/test_dataset.py::test_what_is_stored_goes_by_the_id_of_its_row_and_not_by_its_place[top_log_probs]",
    ),
    Fault(
        "targets of another tokenizer go by place",
        "distill/training/dataset.py",
        'found = None if by_id is None else by_id[row["id"]]',
        "found = None if by_id is None else list(by_id.values())[len(result)]",
        "training/test_dataset.py::test_what_is_stored_goes_by_the_id_of_its_row_and_not_by_its_place[top_tail]",
    ),
    Fault(
        "targets of something else are taken",
        "distill/targets/store.py",
        "    if wrong:\n",
        "    if False:\n",
        "targets/test_store.py::test_targets_of_anything_else_are_refused_by_name[template]",
    ),
    Fault(
        "targets of texts that have changed are taken",
        "distill/targets/store.py",
        'data=value_hash([[row["id"], row["messages"], row["response"], row["finish_reason"]] for row in rows])',
        'data=value_hash([row["id"] for row in rows])',
        "targets/test_store.py::test_they_are_of_the_very_texts_of_the_rows_and_of_what_the_tokenizer_does_and_not_of_its_size",
    ),
    Fault(
        "targets of a tokenizer of like size are taken",
        "distill/targets/store.py",
        "tokenizer=fingerprint(tokenizer),",
        "tokenizer=str(len(tokenizer)),",
        "targets/test_store.py::test_they_are_of_the_very_texts_of_the_rows_and_of_what_the_tokenizer_does_and_not_of_its_size",
    ),
]


def project(folder: Path) -> Path:
    """A copy of what the tests need."""
    for name in FOLDERS:
        shutil.copytree(tiny.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(tiny.ROOT / name, folder)
    return folder


def run(folder: Path, *names: str) -> CompletedProcess[str]:
    """These tests in the copy. Plugins that they need not take longer to load than they to run."""
    few = ["--disable-plugin-autoload", "-p", "pytest_timeout", "-p", "xdist.plugin", "-p", "no:cacheprovider"]
    own = ["-x", "--tb=short", f"--basetemp={folder / 'tmp'}"]
    return forks.run_pytest(folder, *few, *own, *(f"tests/{name}" for name in names))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_noticed(tmp_path, fault):
    path = project(tmp_path) / fault.file
    text = path.read_text()
    assert text.count(fault.right) == 1, (
        f"{fault.file} has changed, and what the fault replaces is there {text.count(fault.right)} times. "
        "Write it into the table as it is now, so that the fault is the same."
    )
    path.write_text(text.replace(fault.right, fault.wrong))
    done = run(tmp_path, fault.test)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, f"not noticed:\n{done.stdout}\n{done.stderr}"
    errors = [line for line in done.stdout.splitlines() if line.startswith("E ")]
    assert ASSERTED.match(errors[0]), f"the test has crashed and looked at nothing:\n{done.stdout}"


def test_without_a_fault_the_same_tests_pass(tmp_path):
    done = run(project(tmp_path), *dict.fromkeys(fault.test for fault in FAULTS))
    assert done.returncode == pytest.ExitCode.OK, f"{done.stdout}\n{done.stderr}"
