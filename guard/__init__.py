"""Forget targets, policy, the guarded engine and its interventions."""
