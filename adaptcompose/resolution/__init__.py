"""From references to pins: what a name means, and what the files behind it contain."""
