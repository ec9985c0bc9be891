"""Nodes, names and attributes of the tree, as far as it is known."""
