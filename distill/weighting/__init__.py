"""Confidence measures and the sample weights made of them: numpy only."""
