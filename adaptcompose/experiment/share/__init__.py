"""Publishing a composition, pulling one, and its model card."""
