"""Faults to plant in evaluation, each with the test that must notice it."""

from planting import Fault

FAULTS = [
    Fault(
        "a spelled-out end of turn ends the response in the evaluation",
        "distill/evaluation/lm_eval_model.py",
        "ids, spans = response_spans(tokenizer, response)",
        "encoded = tokenizer(response, add_special_tokens=False, return_offsets_mapping=True); "
        "ids, spans = encoded.input_ids, encoded.offset_mapping",
        "evaluation/test_text_responses.py::test_a_document_has_the_prompt_and_response_of_training",
    ),
    Fault(
        "two BOS in the evaluation",
        "distill/evaluation/lm_eval_model.py",
        "text_ids(self.hf_tokenizer, context)",
        "self.hf_tokenizer(context).input_ids",
        "evaluation/test_lm_eval_model.py::test_prompts_have_one_bos_where_the_tokenizer_adds_its_own",
    ),
    Fault(
        "two BOS in texts generated for the evaluation",
        "distill/evaluation/lm_eval_model.py",
        "text_ids(self.hf_tokenizer, request.args[0])",
        "self.hf_tokenizer(request.args[0]).input_ids",
        "evaluation/test_lm_eval_model.py::test_prompts_have_one_bos_where_the_tokenizer_adds_its_own",
    ),
    Fault(
        "the evaluation prompts without the template",
        "distill/evaluation/text_responses.py",
        '"prompt": render(tokenizer, row["messages"]),',
        '"prompt": row["messages"][-1]["content"],',
        "evaluation/test_text_responses.py::test_a_document_has_the_prompt_and_response_of_training",
    ),
    Fault(
        "the end of turn counts as text of the reference",
        "distill/evaluation/tasks/scores.py",
        'rouge_l(doc["response"], generated)',
        'rouge_l(doc["continuation"], generated)',
        "evaluation/test_text_responses.py::test_rouge_l_of_the_response_itself_is_1",
    ),
    Fault(
        "the end of turn counts among the characters of a choice",
        "distill/evaluation/tasks/scores.py",
        'doc["choice_responses"]',
        'doc["choices"]',
        "evaluation/test_task_scores.py::test_a_choice_is_normalized_by_its_text_without_its_end_of_turn",
    ),
    Fault(
        "the end of turn counts among the bytes of the response",
        "distill/evaluation/text_responses.py",
        'len(sample["doc"]["response"].encode())',
        'len(sample["doc"]["continuation"].encode())',
        "evaluation/test_text_responses.py::test_bytes_are_those_of_the_response_without_its_end_of_turn",
    ),
]
