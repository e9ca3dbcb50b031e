"""Tasks for lm-eval: YAML files and the scores that they name."""
