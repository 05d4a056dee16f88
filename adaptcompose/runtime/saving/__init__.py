"""A composed model to a folder and back."""
