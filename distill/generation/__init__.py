"""Querying teachers: prompts, journal, budget, local models and APIs, self-instruct, judge, aggregator.

What is paid for happens here and nowhere else. Filters of responses belong in cleaning.
"""
