"""spec.yaml as values: reading, checking, formatting, its JSON Schema."""
