"""The schema of params.yaml, a module for each section.

It accepts or refuses the file and changes no value. Nothing here computes a result, so that no stage lists this room
as a dep: DVC tracks the values themselves.
"""
