"""Suites beside TOFU and RWKU: each measures one thing that a guard promises; ``lethe eval`` runs them."""
