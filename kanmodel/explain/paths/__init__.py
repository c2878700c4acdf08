"""Ledgers, which are integrals along paths from a baseline to windows: contributions that sum at every layer."""
