"""`sigma-bench speed`: this harness compared with the usual way to do the same."""
