"""Keys of earlier versions of params.yaml and what they are called now."""

from collections.abc import Iterator
from typing import Any

# `*` is any position in a list; a new name in words stands for a change of shape
RENAMED = {
    "seed": "data_seed",
    "seeds": "training_seeds",
    "teachers.*.template": "teachers.*.chat_template",
    "teachers.*.share": "teachers.*.prompt_fraction",
    "teachers.*.licence": "teachers.*.license",
    "teachers.*.extra": "teachers.*.extra_body",
    "generate.grow": "generate.self_instruct",
    "generate.grow.rounds": "generate.self_instruct.num_rounds",
    "generate.grow.per_round": "generate.self_instruct.requests_per_round",
    "generate.grow.novelty": "generate.self_instruct.max_rouge_l",
    "generate.grow.max_tokens": "generate.self_instruct.max_new_tokens",
    "generate.labels": "generate.class_labels",
    "generate.max_tokens": "generate.max_new_tokens",
    "generate.samples": "generate.num_samples",
    "generate.needs": "generate.required_capabilities",
    "clean.validation_topics": "clean.validation_fraction",
    "clean.test_topics": "clean.test_fraction",
    "clean.near_duplicate": "clean.minhash_threshold",
    "clean.minhash_permutations": "clean.minhash_num_perm",
    "clean.contamination_ngram": "clean.decontamination_ngram",
    "clean.refusals": "clean.refusal_prefixes",
    "weight.scheme": "weight.kind",
    "weight.window": "weight.confidence.window, with measure lowest_window_log_prob",
    "weight.length_buckets": "weight.num_length_buckets",
    "weight.clip": "weight.max_weight",
    "weight.min_effective_share": "weight.min_ess_fraction",
    "weight.targets": "the section targets (kind stored is top_k, hidden is hidden_states)",
    "weight.layers": "targets.layers",
    "train.student": "the section init (source teacher is pruned)",
    "train.student.layer_choice": "init.layer_selection (listed is explicit, evenly is uniform)",
    "train.student.neurons": "init.intermediate_size",
    "train.student.kv_heads": "init.num_key_value_heads",
    "train.student.calibration_rows": "init.num_calibration_samples",
    "train.student.vocabulary": "init.vocab_size",
    "train.student.adapter": "train.adapter",
    "train.schedule": "train.optimization",
    "train.schedule.epochs": "train.optimization.num_train_epochs",
    "train.schedule.gradient_accumulation": "train.optimization.gradient_accumulation_steps",
    "train.schedule.warmup_share": "train.optimization.warmup_ratio",
    "train.schedule.decay": "train.optimization.lr_scheduler_type",
    "train.schedule.log_every": "train.optimization.logging_steps",
    "train.schedule.save_every": "train.optimization.save_steps",
    "train.ladder": "train.progressive",
    "train.ladder.rungs": "train.progressive.students",
    "train.rounds": "train.self_distillation",
    "train.rounds.number": "train.self_distillation.num_generations",
    "train.rounds.average_decay": "train.self_distillation.ema_decay",
    "train.init": "nothing: it had no choice",
    "train.sft": "nothing: sft is trained with cross-entropy alone",
    "train.distilled.cross_entropy_share": "train.distilled.loss.ce_weight",
    "train.distilled.temperature": "train.distilled.loss.temperature",
    "train.distilled.beta": "train.distilled.loss.beta",
    "train.distilled.tail": "train.distilled.loss.tail",
    "train.distilled.layer_loss": "train.distilled.hidden_loss",
    "train.distilled.layer_loss.pairs": "train.distilled.hidden_loss.layer_pairs",
    "train.distilled.layer_loss.loss": "train.distilled.hidden_loss.distance",
    "train.distilled.layer_loss.alone": "train.distilled.hidden_loss.hint_fraction",
    "evaluate.max_items": "evaluate.max_samples",
    "evaluate.bootstrap": "evaluate.bootstrap_resamples",
    "evaluate.extra_tasks": "evaluate.benchmarks",
    "evaluate.extra_tasks.*.chat_template": "evaluate.benchmarks.*.apply_chat_template",
    "evaluate.extra_limit": "evaluate.benchmark_limit",
    "evaluate.latency.warmup": "evaluate.latency.num_warmup_runs",
    "evaluate.latency.runs": "evaluate.latency.num_runs",
    "plot.samples": "plot.num_samples",
}


def renamed_keys(value: Any, pattern: str = "", path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, new name) of each key in the value that was renamed, in the file's order."""
    if isinstance(value, dict):
        children = [(str(key), str(key), child) for key, child in value.items()]
    elif isinstance(value, list):
        children = [("*", str(number), child) for number, child in enumerate(value)]
    else:
        return
    for key, name, child in children:
        known, dotted = (f"{before}.{after}".lstrip(".") for before, after in ((pattern, key), (path, name)))
        if known in RENAMED:
            numbers = [part for part in dotted.split(".") if part.isdigit()]
            yield dotted, RENAMED[known].replace("*", "{}").format(*numbers)
        yield from renamed_keys(child, known, dotted)
