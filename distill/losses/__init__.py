"""The loss formulas, from logits and targets: divergences, cross-tokenizer, hidden states, class labels.

One convention for all, stated in divergences. The loop that minimises them belongs in training.
"""
