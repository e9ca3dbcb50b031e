"""Filters, deduplication, decontamination, selection among responses, splits by topic.

It reads rows of responses and runs no model.
"""
