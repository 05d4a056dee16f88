"""The language: text to tree, tree to graph, graph to drawings. Nothing here imports torch."""
