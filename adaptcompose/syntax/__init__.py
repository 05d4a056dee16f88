"""Text to syntax tree and back: the grammar, references, literals, signatures."""
