"""Methods side by side: `python -m tools.methods` plans, trains, measures and compares with these."""
