"""The teacher's distributions: the pass that makes them, the files that hold them, other tokenizers.

How a student learns from them belongs in losses.
"""
