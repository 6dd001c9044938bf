"""Track finding by a graph neural network: spacepoints to track candidates, and these to seeds."""
