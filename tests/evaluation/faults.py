"""Faults to plant in evaluation, each with the test that must notice it."""

from planting import Fault

FAULTS = [
    Fault(
        "a spelled-out end of turn ends the response in the evaluation",
        "distill/evaluation/lm_eval_model.py",
        "split_special_tokens=True, return",
        "return",
        "evaluation/test_held_out.py::test_a_document_is_the_prompt_and_answer_of_training",
    ),
    Fault(
        "two BOS in the evaluation",
        "distill/evaluation/lm_eval_model.py",
        "self.hf_tokenizer(context, add_special_tokens=False)",
        "self.hf_tokenizer(context)",
        "evaluation/test_held_out.py::test_the_prompt_is_that_of_training_though_the_tokenizer_adds_a_bos_of_its_own",
    ),
    Fault(
        "two BOS in texts generated for the evaluation",
        "distill/evaluation/lm_eval_model.py",
        "self.hf_tokenizer(request.args[0], add_special_tokens=False)",
        "self.hf_tokenizer(request.args[0])",
        "evaluation/test_held_out.py::test_the_prompt_is_that_of_training_though_the_tokenizer_adds_a_bos_of_its_own",
    ),
    Fault(
        "the evaluation prompts without the template",
        "distill/evaluation/held_out.py",
        '"prompt": render(tokenizer, row["messages"]),',
        '"prompt": row["messages"][-1]["content"],',
        "evaluation/test_held_out.py::test_a_document_is_the_prompt_and_answer_of_training",
    ),
]
