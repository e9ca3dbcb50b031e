"""Faults to plant in generation, each with the test that must notice it."""

from planting import Fault

FAULTS = [
    Fault(
        "the end of turn stays in the teacher's text and is learnt twice",
        "distill/modeling/chat.py",
        "tokenizer.decode(ids[:-1], skip",
        "tokenizer.decode(ids, skip",
        "modeling/test_decoding.py::test_the_end_of_turn_is_no_part_of_an_answers_text",
    ),
    Fault(
        "the teacher responds without the template",
        "distill/generation/local.py",
        "prompts = [prompt_ids(tokenizer, request.messages) for request in batch]",
        'prompts = [tokenizer(request.messages[-1]["content"]).input_ids for request in batch]',
        "modeling/test_decoding.py::test_greedy_answers_are_those_of_transformers_generate",
    ),
]
