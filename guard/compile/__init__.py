"""Compile jobs: fitting what interventions need for a target, by forward passes of the engine that is serving."""
