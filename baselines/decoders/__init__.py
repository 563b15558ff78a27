"""The p(x|z) families: a decoder turns a network's output into a distribution over images."""

MODULES = ("gaussian", "discrete", "student_t", "laplace", "variance_remedies")
"""The files with bundled decoders, in the order in which tables list them."""
