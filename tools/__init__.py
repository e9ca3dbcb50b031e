"""Commands outside the pipeline, run by a person."""
