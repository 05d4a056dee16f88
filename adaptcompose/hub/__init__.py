"""Where adapters come from and go to: references, the catalogue, hubs, file formats, the lock."""
