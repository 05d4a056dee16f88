"""Examples: reading files, labels, and encoding for a tokenizer."""
