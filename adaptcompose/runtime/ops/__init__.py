"""The modules that compute the primitives of a program."""
