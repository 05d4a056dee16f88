"""The running model: what primitives compute, and how they attach to a stock transformers model."""
