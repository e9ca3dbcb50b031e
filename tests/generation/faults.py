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
    Fault(
        "prompts follow a redirect to another host",
        "distill/generation/api/http.py",
        "                    self._require_own_host(response)\n",
        "",
        "generation/test_live.py::test_a_redirect_to_another_host_is_refused",
    ),
    Fault(
        "the journal takes a line whatever its checksum",
        "distill/generation/journal.py",
        'raise ValueError("a wrong checksum")',
        "return True",
        "generation/test_journal.py::test_any_changed_letter_is_noticed",
    ),
    Fault(
        "an account without credit is asked on",
        "distill/generation/api/failures.py",
        'if kind in ("quota", "http_402"):',
        'if kind == "quota":',
        "generation/test_server_shapes.py::test_an_account_without_credit_stops_the_run",
    ),
    Fault(
        "thinking billed beyond the maximum is not reserved",
        "distill/generation/api/client.py",
        "EXCESS_MARGIN = 2",
        "EXCESS_MARGIN = 0",
        "generation/test_server_shapes.py::test_thinking_billed_beyond_the_maximum_keeps_the_budget",
    ),
]
