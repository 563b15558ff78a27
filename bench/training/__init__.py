"""The optimisation of one run."""
