"""Measures of a trained run, and the protocol that each was taken under."""
