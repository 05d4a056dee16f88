"""Hubs: the Hugging Face Hub or a folder, behind one interface, and the lock file."""
