"""Saving a composed model to a folder, and loading it."""
