"""Comparison of distillation methods on the same data: `python -m tools.methods`."""
