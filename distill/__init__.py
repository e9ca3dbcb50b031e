"""Rooms of the pipeline, each a package. A room imports only rooms above it: the order stands in pyproject.toml."""
