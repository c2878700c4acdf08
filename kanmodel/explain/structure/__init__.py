"""Structure of a network: ids, connectivity, pykan's scores, and forward passes with replaced edges."""
