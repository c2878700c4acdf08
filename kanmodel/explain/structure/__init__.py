"""What follows from a network and its reference windows alone: ids, connectivity, pykan's scores, masked edges."""
