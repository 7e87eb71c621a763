"""TOFU (Maini et al., 2024; arXiv 2401.06121) measured through a running server, as its clients see it."""
