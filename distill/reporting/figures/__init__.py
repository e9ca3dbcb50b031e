"""The figures of a report: a matplotlib figure for each, wide for a page or narrow for a phone."""
