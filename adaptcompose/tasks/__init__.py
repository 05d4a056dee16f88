"""What a kind of task is made of."""
