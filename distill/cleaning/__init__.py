"""Filters, deduplication, decontamination, selection among responses, splits by topic.

This room reads rows of responses and runs no model.
"""
