"""Faults to plant in weighting, each with the test that must notice it."""

from planting import Fault

FAULTS = [
    Fault(
        "all rows of a batch have the first one's targets",
        "stages/weight.py",
        "                start += len(example.response)\n",
        "",
        "weighting/test_weight_stage.py::test_what_is_stored_of_a_ragged_batch_is_what_each_row_has_alone[stored]",
    ),
    Fault(
        "logits of padding are stored",
        "stages/weight.py",
        "store.top_k(part[:, :size], wanted.top_k)",
        "store.top_k(part, wanted.top_k)",
        "weighting/test_weight_stage.py::test_logits_beyond_the_tokenizer_are_padding_of_a_family_and_have_no_mass[stored]",
    ),
]
