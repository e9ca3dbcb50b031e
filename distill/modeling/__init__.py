"""Running a language model: loading, prompts as token ids, batches, forward passes, scores, decoding.

What teachers and students share. Nothing here trains, and nothing knows of the pipeline's files.
"""
