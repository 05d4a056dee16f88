"""Training support: robust AdapterDrop and the cached trunk."""
