from distill.modeling.batches import length_batches, pad_batch
from distill.modeling.chat import Example


def test_prompts_and_padding_are_not_learnt():
    batch = pad_batch([([5, 6, 7], [8, 2]), ([5], [9, 9, 2])])
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 2], [5, 9, 9, 2, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    # the position before a token predicts it
    assert batch.response_mask.tolist() == [[False, False, True, True, False], [True, True, True, False, False]]


def test_batches_hold_similar_lengths_within_the_budget():
    examples = [Example(str(size), [1] * size, [2]) for size in (3, 9, 4, 1)]
    assert length_batches(examples, 10) == [[1], [2, 0], [3]]
    assert length_batches(examples, 1) == [[1], [2], [0], [3]]
