"""The pipeline's stages, each run as `python -m stages.NAME` and never imported by another."""
