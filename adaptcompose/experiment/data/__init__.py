"""Examples: read files, make tasks with labels, and encode for a model."""
