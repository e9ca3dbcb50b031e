"""Faults to plant in training, each with the test that must notice it."""

from planting import Fault

FAULTS = [
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
        'batch["response_mask"].sum() for batch',
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
        "teacher tokens with the same first piece overwrite each other's mass",
        "distill/training/online_teacher.py",
        "carried.scatter_add_(1,",
        "carried.scatter_(1,",
        "training/test_online_teacher.py::test_the_distribution_is_that_of_a_plain_forward_pass_carried_over_token_by_token",
    ),
    Fault(
        "stored tokens with the same first piece overwrite each other's mass",
        "distill/training/dataset.py",
        "scatter_add_(-1, place, probs)",
        "scatter_(-1, place, probs)",
        "training/test_dataset.py::test_equal_ids_in_a_row_are_added_up_and_no_mass_is_lost",
    ),
    Fault(
        "the end of turn is dropped as padding",
        "distill/training/dataset.py",
        'Sample(row["id"], example.prompt, example.response,',
        'Sample(row["id"], example.prompt, [t for t in example.response if t != student.pad_token_id],',
        "training/test_dataset.py::test_a_batch_has_one_end_of_turn_to_learn_in_each_row_that_ended_though_padding_is_the_same_token",
    ),
    Fault(
        "a token that also pads has no gradient where it is text",
        "distill/training/tied_embeddings.py",
        "    embedding.padding_idx = None\n",
        "",
        "training/test_tied_embeddings.py::test_an_embedding_has_the_same_gradient_when_its_rows_are_added_in_place[False]",
    ),
    Fault(
        "logits of padding have mass",
        "distill/training/online_teacher.py",
        "logits(span)[:, : len(pieces)].float().softmax(-1)",
        "logits(span).float().softmax(-1)[:, : len(pieces)]",
        "training/test_online_teacher.py::test_the_distribution_is_that_of_a_plain_forward_pass_carried_over_token_by_token",
    ),
    Fault(
        "the online teacher reads no template",
        "distill/training/dataset.py",
        'Asked(prompt_ids(teacher, row["messages"]),',
        'Asked(teacher(row["messages"][-1]["content"]).input_ids,',
        "training/test_online_teacher.py::test_teacher_and_student_read_the_same_prompt",
    ),
    Fault(
        "targets are matched by position",
        "distill/training/dataset.py",
        'given |= _at(places, by_id[row["id"]], pieces)',
        "given |= _at(places, list(by_id.values())[len(result)], pieces)",
        "training/test_dataset.py::test_what_is_stored_goes_by_the_id_of_its_row_and_not_by_its_place[top_log_probs]",
    ),
    Fault(
        "targets of another tokenizer are matched by position",
        "distill/training/dataset.py",
        'found = None if by_id is None else by_id[row["id"]]',
        "found = None if by_id is None else list(by_id.values())[len(result)]",
        "training/test_dataset.py::test_what_is_stored_goes_by_the_id_of_its_row_and_not_by_its_place[top_tail]",
    ),
]
