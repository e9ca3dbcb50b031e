"""Training beside TRL's GKD: `python -m tools.bench train` runs tools/bench/train.py."""
