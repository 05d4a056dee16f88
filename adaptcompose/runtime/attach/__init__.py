"""Attach the modules of a program to a copy of the backbone."""
