"""What matters over the reference windows: contributions, permutation effects, profiles, with intervals."""
