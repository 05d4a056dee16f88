"""Modules that compute the primitives of a program."""
