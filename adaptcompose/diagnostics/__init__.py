"""Diagnostics: codes, messages, and the places in a text that they point at."""
