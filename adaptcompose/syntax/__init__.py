"""From text to syntax tree and back: grammar, references, literals, signatures."""
