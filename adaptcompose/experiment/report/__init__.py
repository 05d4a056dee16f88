"""The report of a run: JSON, an HTML page, and plots."""
