"""The held-out rows that are measured, and generated texts compared with their references."""

from held_out_rows import row

from distill.evaluation.held_out import sample_held_out, with_token_match


def test_models_generate_for_a_subset_of_the_measured_rows():
    pool = [row(number, f"answer {number}") for number in range(30)]
    held_out = sample_held_out(pool, 10, 4, 1)
    assert (len(held_out.pool), len(held_out.rows), len(held_out.generation_ids)) == (30, 10, 4)
    assert held_out.generation_ids < {sample["id"] for sample in held_out.rows}
    assert held_out.references == {sample["id"]: sample["response"] for sample in held_out.rows}


def test_token_match_is_over_the_longer_text(tokenizer):
    items = [{"item": "a", "generated": "abc"}, {"item": "b", "generated": "ab"}, {"item": "c", "generated": ""}]
    references = {"a": "abc", "b": "abcd", "c": "ab", "d": "x"}
    compared = with_token_match([*items, {"item": "d"}], references, tokenizer)
    names = ("matching_tokens", "longer_length", "generated_length", "reference_length")
    assert [tuple(item.get(name) for name in names) for item in compared] == [
        (3, 3, 3, 3), (2, 4, 2, 4), (0, 2, 0, 2), (None, None, None, None)
    ]  # fmt: skip
