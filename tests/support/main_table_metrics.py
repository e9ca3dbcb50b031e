"""A tiny metrics/metrics.json."""

ROW = {
    "accuracy": 0.91234, "accuracy_ci_low": 0.89, "accuracy_ci_high": 0.93, "accuracy_above_chance": 0.88,
    "perplexity": 2.2, "top1_agreement": 0.98, "rouge_l": 0.7, "parameters": 134_515_008, "bytes": 98_362_432,
}  # fmt: skip
GOALS = {
    "accuracy_ratio": 0.9, "accuracy_ratio_above_chance": 0.87, "perplexity": 21.0, "compression_ratio": 0.2499,
    "latency_gain": 3.1, "met": 3,
}  # fmt: skip
METRICS = {
    "teacher": ROW,
    "init": ROW | {"accuracy": 0.25, "perplexity": 251_234.5},
    "sft": ROW | {"perplexity": 25.0},
    "distilled": ROW | {"perplexity": 21.0},
    "goals": GOALS,
}
