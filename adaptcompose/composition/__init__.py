"""The composition graph: operators, names, heads, checks, drawings, completion."""
