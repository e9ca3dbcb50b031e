"""Measuring models: lm-eval, held-out tasks, benchmarks, scores with intervals, latency, goals."""
