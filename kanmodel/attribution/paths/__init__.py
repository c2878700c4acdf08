"""Ledgers: path integrals from a baseline to windows, whose contributions are complete at every layer."""
