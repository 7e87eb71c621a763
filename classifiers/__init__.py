"""Text in, findings out: normalising, alias lexicon, sentence-encoder evidence, calibration.

This package knows nothing about tenants, policies or engines; ``guard`` puts it to work.
"""
