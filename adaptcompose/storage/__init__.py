"""Files on disk: YAML with source positions, and atomic writes."""
