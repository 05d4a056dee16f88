"""The composition graph: operators, names, heads, checks and drawings."""
