"""The running model: the only side of the package that imports torch at the top."""
