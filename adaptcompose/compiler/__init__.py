"""The compiler: a locked graph becomes a program of primitives per site, without torch."""
