"""Faults to plant in training, each with the test that must notice it."""

from planting import Fault

FAULTS = [
    Fault(
        "divided by the micro-batch",
        "distill/training/trainer.py",
        "self.accelerator.num_processes / num_items_in_batch",
        'self.accelerator.num_processes / inputs["weights"].sum()',
        "training/test_trainer.py::test_micro_batches_give_the_same_step[settings1]",
    ),
    Fault(
        "divided by the number of micro-batches too",
        "distill/training/trainer.py",
        "self.loss_is_scaled_for_ga = True",
        "self.loss_is_scaled_for_ga = False",
        "training/test_trainer.py::test_micro_batches_give_the_same_step[settings1]",
    ),
    Fault(
        "divided by tokens without their weights",
        "distill/training/trainer.py",
        'batch["weights"].sum() for batch',
        'batch["response_mask"].sum() for batch',
        "training/test_trainer.py::test_a_step_divides_by_weights_times_tokens",
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
        "mapped.scatter_add_(1,",
        "mapped.scatter_(1,",
        "training/test_online_teacher.py::test_distributions_equal_a_mapped_forward_pass",
    ),
    Fault(
        "stored tokens with the same first piece overwrite each other's mass",
        "distill/targets/stored.py",
        "scatter_add_(-1, column, probs)",
        "scatter_(-1, column, probs)",
        "targets/test_stored.py::test_equal_ids_add_up",
    ),
    Fault(
        "the end of turn is dropped as padding",
        "distill/training/dataset.py",
        'Sample(row["id"], example.prompt, example.response, row["weight"], None)',
        'Sample(row["id"], example.prompt, [t for t in example.response if t != student.pad_token_id], 1.0, None)',
        "training/test_dataset.py::test_finished_rows_learn_one_end_of_turn",
    ),
    Fault(
        "a token that also pads has no gradient where it is text",
        "distill/training/tied_embeddings.py",
        "    embedding.padding_idx = None  #",
        "    #",
        "training/test_tied_embeddings.py::test_in_place_gradients_equal_torchs[False]",
    ),
    Fault(
        "logits of padding have mass",
        "distill/training/online_teacher.py",
        "logits(span)[:, : len(student_ids)].float().softmax(-1)",
        "logits(span).float().softmax(-1)[:, : len(student_ids)]",
        "training/test_online_teacher.py::test_distributions_equal_a_mapped_forward_pass",
    ),
    Fault(
        "the online teacher reads no template",
        "distill/training/dataset.py",
        'TeacherInputs(prompt_ids(teacher.tokenizer, row["messages"]),',
        'TeacherInputs(teacher.tokenizer(row["messages"][-1]["content"]).input_ids,',
        "training/test_online_teacher.py::test_teacher_and_student_read_the_same_prompt",
    ),
    Fault(
        "targets are matched by position",
        "distill/training/dataset.py",
        'targets = teacher.stored[row["id"]].for_student(',
        "targets = list(teacher.stored.values())[len(result)].for_student(",
        "training/test_dataset.py::test_targets_are_found_by_row_id[top_k]",
    ),
    Fault(
        "targets of another tokenizer are matched by position",
        "distill/training/dataset.py",
        'teacher.stored[row["id"]]\n    if',
        'list(teacher.stored.values())[["ants", "jazz", "north"].index(row["id"])]\n    if',
        "training/test_dataset.py::test_targets_are_found_by_row_id[spans]",
    ),
]
