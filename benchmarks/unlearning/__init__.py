"""Unlearning as published, on the demo model: gradient methods that change the weights, and ULD, which adds a model."""
