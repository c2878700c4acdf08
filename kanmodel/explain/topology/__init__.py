"""The network as a graph, and pruning."""
