"""Placing the modules of a program into a copy of the backbone."""
