"""The network as a graph of nodes and edges, and pruning."""
