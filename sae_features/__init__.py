"""Sparse-autoencoder features of the served model: find a forget target's features, watch them, clamp them.

``loading`` or ``training`` gives a :class:`~sae_features.autoencoder.SparseAutoencoder`, ``selection`` a target's
features, ``rule`` the threshold on their share, ``encoding`` and ``clamping`` what is done to the residual stream.
``skills`` is a detector of its own, on the keys of an MLP. Nothing here knows of tenants, requests or engines.
"""
