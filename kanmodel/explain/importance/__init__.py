"""Importance over the reference windows: mean contributions, permutation importance and profiles, with intervals."""
