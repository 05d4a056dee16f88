"""Files on disk: YAML with places, and atomic writes."""
