"""spec.yaml: read, check and format it, and describe it by a JSON Schema."""
