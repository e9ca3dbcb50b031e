"""Speed and memory on this machine: `python -m tools.bench generate`, `clean` or `train`."""
