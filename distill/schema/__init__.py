"""The sections of params.yaml, by what they are about; distill/params.py puts them together."""
