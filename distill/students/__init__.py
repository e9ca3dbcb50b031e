"""Making a student: pruning, importance, vocabulary, LoRA, and the names of the runs that train one.

The calls: stages/init.py -> build.prune_teacher -> vocabulary.select_tokens, pruning.select_parts, pruning.prune.
"""
