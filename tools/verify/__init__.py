"""Verification of HEAD's results by a new run in an empty clone: `python -m tools.verify`."""
