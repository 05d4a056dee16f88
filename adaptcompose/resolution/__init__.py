"""References to pinned files: what a name means, and what the files behind it hold."""
