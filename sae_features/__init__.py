"""Sparse-autoencoder features of the served model (see the roadmap in ``docs/roadmap.md``)."""
