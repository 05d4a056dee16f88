"""Adapter files of several formats, read without trusting them."""
