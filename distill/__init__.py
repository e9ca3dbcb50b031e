"""Rooms of the pipeline, each a package. Each imports only those before it in the order of CONTRIBUTING.md."""
