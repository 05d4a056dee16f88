"""What a run measured, as JSON, as an HTML page, and as plots."""
