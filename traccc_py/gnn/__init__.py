"""Weights of the graph neural network that finds track candidates, and its training."""
