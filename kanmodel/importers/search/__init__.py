"""How the parts of a bare state dict join: candidates that a check decides between."""
