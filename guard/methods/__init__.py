"""Published methods as closed forms: activations in, rank-one weight edits out. No engine, no state."""
