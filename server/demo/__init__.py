"""The demo: an invented world, a small model trained from scratch on it, and the scenario that is played against it."""
