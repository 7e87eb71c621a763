"""Attacks on what a served model was made to forget: every attack against every configuration of guards, over HTTP."""
