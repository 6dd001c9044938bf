"""Training of the graph neural network: graphs of simulated events with truth, networks in PyTorch, the training."""
