"""Prepare a run: resolve references, find the data, and pin both in a lock."""
