"""What users read when something is wrong: codes, places in a text, and how they are printed."""
