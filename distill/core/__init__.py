"""Errors, files, text and the folder of journals: plain Python for every room.

No torch, no params and no model here.
"""
