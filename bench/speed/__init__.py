"""`sigma-bench speed`: what this harness does beside the usual way of doing it, in one process."""
