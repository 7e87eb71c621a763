"""Documents that a model knows by heart, after MUSE (Shi et al., 2024; arXiv 2407.06460), on public-domain text."""
