"""What training needs beside the model: robust AdapterDrop, a cached trunk."""
