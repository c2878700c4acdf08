"""The network as a graph, and what pruning keeps of it."""
