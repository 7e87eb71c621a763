"""Numerical kernels: each file holds a PyTorch reference and, where it pays, a Triton kernel that equals it."""
